"""Merging layers: every trap of the format, one test each."""

import stat

import pytest

from shed.entries import Entry
from shed.errors import DataError
from shed.oci.flatten import flatten, split
from shed.oci.tarstream import Member
from support.layers.tars import Item, device, file, flat, folder, hardlink, members, symlink, tar, text


def paths(*layers: list[Item]) -> list[str]:
    """Return the paths of the merged tree without the root."""
    return [path for path in flat(*layers) if path]


def test_upper_layer_wins() -> None:
    """The content and the owner of the upper file are shown."""
    tree = flat([file("a", b"old", uid=1), file("b", b"kept")], [file("a", b"new", uid=2)])
    assert text(tree["a"]) == "new"
    assert tree["a"].uid == 2
    assert text(tree["b"]) == "kept"


def test_entries_are_sorted_by_components() -> None:
    """A folder comes before what it holds, and before siblings whose names only sort between in plain byte order."""
    assert paths([file("a-b"), file("a/x"), file("a.c"), file("B"), folder("a")]) == ["B", "a", "a/x", "a-b", "a.c"]


def test_root_is_always_there() -> None:
    """No layers at all give an empty root folder."""
    (root,) = flat().values()
    assert root == Entry(b"", stat.S_IFDIR | 0o755)


def test_root_entry_sets_the_roots_attributes() -> None:
    """`./` is the root itself."""
    tree = flat([folder("./", mode=0o700, uid=5, mtime=77)])
    assert (tree[""].mode, tree[""].uid, tree[""].mtime) == (stat.S_IFDIR | 0o700, 5, 77)


def test_root_that_is_a_file_is_refused() -> None:
    """A file named `.` cannot be the root."""
    with pytest.raises(DataError, match="layer 1: the root is not a folder"):
        flat([file("./")])


def test_whiteout_hides_a_file_and_a_folder_below_it() -> None:
    """`.wh.NAME` removes NAME and all that it holds, and is not shown."""
    assert paths([file("a"), file("d/x"), file("keep")], [file(".wh.a"), file(".wh.d")]) == ["keep"]


def test_whiteouts_apply_before_additions_whatever_their_order() -> None:
    """A name that a layer both removes and adds is there, wherever the whiteout stands."""
    lower = [file("d/old", b"old"), file("f", b"old")]
    for upper in (
        [file("d/new"), file("f", b"new"), file(".wh.d"), file(".wh.f")],
        [file(".wh.d"), file(".wh.f"), file("d/new"), file("f", b"new")],
    ):
        tree = flat(lower, upper)
        assert [path for path in tree if path] == ["d", "d/new", "f"]
        assert text(tree["f"]) == "new"


def test_whiteout_does_not_touch_its_own_layer() -> None:
    """A whiteout of a name that only its own layer adds hides nothing."""
    assert paths([file("a"), file(".wh.a")]) == ["a"]


def test_whiteout_of_nothing_is_nothing() -> None:
    """Neither a missing name nor a missing folder matters."""
    assert paths([file("a")], [file(".wh.b"), file("no/.wh.c"), file("a/.wh.d")]) == ["a"]


def test_opaque_hides_lower_children_only() -> None:
    """`.wh..wh..opq` empties the folder of lower layers; the folder and its own layer's files stay, whatever the
    order.
    """
    lower = [folder("d", mode=0o711), file("d/old"), file("d/sub/old")]
    assert paths(lower, [file("d/new"), file("d/.wh..wh..opq")]) == ["d", "d/new"]
    tree = flat(lower, [file("d/.wh..wh..opq"), file("d/new")])
    assert tree["d"].mode == stat.S_IFDIR | 0o711


def test_opaque_root_hides_everything_below() -> None:
    """The marker works at the root too."""
    assert paths([file("a"), file("d/x")], [file(".wh..wh..opq"), file("b")]) == ["b"]


def test_file_that_replaces_a_folder_hides_its_children() -> None:
    """What the folder held is gone, also when a later layer makes a folder of it again."""
    lower = [file("d/x"), file("d/y")]
    assert paths(lower, [file("d")]) == ["d"]
    assert paths(lower, [symlink("d", "elsewhere")]) == ["d"]
    assert paths(lower, [file("d")], [file("d/z"), folder("d")][::-1]) == ["d", "d/z"]


def test_folder_over_folder_keeps_children_and_takes_attributes() -> None:
    """Listing a folder again changes its attributes alone."""
    tree = flat([folder("d"), file("d/x")], [folder("d", mode=0o700, mtime=9)])
    assert "d/x" in tree
    assert (tree["d"].mode, tree["d"].mtime) == (stat.S_IFDIR | 0o700, 9)


def test_folder_replaces_a_file_and_a_symlink() -> None:
    """A folder entry takes the place of what is no folder; a symlink is not followed at the end of a path."""
    tree = flat([file("a"), folder("real"), symlink("s", "real")], [folder("a"), folder("s"), file("s/x")])
    assert [path for path in tree if path] == ["a", "real", "s", "s/x"]
    assert stat.S_ISDIR(tree["s"].mode)


def test_later_duplicate_in_one_layer_wins() -> None:
    """The last of two entries of one path counts, as it does when tar extracts."""
    assert text(flat([file("a", b"first"), file("./a", b"second")])["a"]) == "second"


def test_hardlink_is_one_inode_with_two_names() -> None:
    """The first name in order carries the file, the other one links to it."""
    tree = flat([file("z", b"data"), hardlink("a", "z")])
    assert text(tree["a"]) == "data"
    assert tree["z"].link == b"a"


def test_hardlink_survives_a_whiteout_of_its_target() -> None:
    """Removing the target in an upper layer leaves the link with the content."""
    tree = flat([file("a", b"data"), hardlink("b", "a")], [file(".wh.a")])
    assert "a" not in tree
    assert text(tree["b"]) == "data"


def test_hardlink_survives_a_replacement_of_its_target() -> None:
    """Replacing the target, in the same layer or above, does not change what the link means."""
    tree = flat([file("a", b"one"), hardlink("b", "a"), file("a", b"two")], [file("a", b"three")])
    assert text(tree["b"]) == "one"
    assert text(tree["a"]) == "three"


def test_hardlink_to_a_lower_layer() -> None:
    """The target may be in a layer below."""
    tree = flat([file("d/a", b"data", mode=0o4755)], [hardlink("b", "d/a")])
    assert tree["d/a"].link == b"b"
    assert tree["b"].mode == stat.S_IFREG | 0o4755


def test_hardlink_to_what_its_own_layer_whites_out() -> None:
    """A rename by link and remove: the link means the file that the whiteout of the same layer takes away."""
    lower = [file("d/a", b"data"), file("e/x", b"x")]
    for upper in ([hardlink("b", "d/a"), file(".wh.d")], [file(".wh.d"), hardlink("b", "d/a")]):
        assert text(flat(lower, upper)["b"]) == "data"
    assert text(flat(lower, [file("e/.wh..wh..opq"), hardlink("b", "e/x")])["b"]) == "x"


def test_hardlink_to_a_symlink_is_the_symlink() -> None:
    """The link is another name of the symlink, not of what that points at."""
    tree = flat([symlink("s", "nowhere"), hardlink("t", "s")])
    assert tree["t"].link == b"s"
    assert tree["s"].target == b"nowhere"


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        ([hardlink("a", "gone")], "'a' is a hardlink to 'gone', which is not there"),
        ([folder("d"), hardlink("a", "d")], "which is a folder"),
        ([hardlink("a", "../../etc/passwd")], "leads out of the root"),
        ([hardlink("a", ".")], "which is not there"),
    ],
)
def test_bad_hardlinks_are_refused(items: list[Item], problem: str) -> None:
    """A link to nothing, to a folder, or out of the tree is one clear error."""
    with pytest.raises(DataError, match=problem):
        flat(items)


def test_parent_that_is_a_symlink_is_followed_inside_the_root() -> None:
    """With `lib -> usr/lib`, the entry `lib/foo` lands in usr/lib, and the symlink stays."""
    tree = flat(
        [folder("usr/lib"), symlink("lib", "usr/lib")],
        [file("lib/foo", b"x"), hardlink("lib/bar", "lib/foo"), file("lib/.wh.gone")],
    )
    assert [path for path in tree if path] == ["lib", "usr", "usr/lib", "usr/lib/bar", "usr/lib/foo"]
    assert stat.S_ISLNK(tree["lib"].mode)


def test_whiteout_through_a_symlink() -> None:
    """A whiteout below a symlink removes what the symlink leads to."""
    assert paths([file("usr/lib/foo"), symlink("lib", "/usr/lib")], [file("lib/.wh.foo")]) == ["lib", "usr", "usr/lib"]


def test_symlinks_out_of_the_root_end_at_the_root() -> None:
    """Parents that point outside are resolved as if the root were the top of the disk."""
    tree = flat([symlink("up", "../../../etc"), symlink("abs", "/etc")], [file("up/a"), file("abs/b")])
    assert [path for path in tree if path] == ["abs", "etc", "etc/a", "etc/b", "up"]


def test_symlink_loops_are_refused() -> None:
    """A parent that never ends is an error, not a hang."""
    with pytest.raises(DataError, match="too many symlinks"):
        flat([symlink("a", "b"), symlink("b", "a"), file("a/x")])


def test_symlink_targets_are_kept_as_they_are() -> None:
    """Where a symlink points is the guest's business."""
    assert flat([symlink("s", "../../../x")])["s"].target == b"../../../x"


def test_dot_dot_that_leaves_the_root_is_refused() -> None:
    """No name climbs out."""
    for name in ("../x", "a/../../x", "/../x", ".."):
        with pytest.raises(DataError, match="leads out of the root"):
            flat([file(name)])


def test_names_are_cleaned() -> None:
    """A leading `/` or `./`, double slashes and inner `..` are taken out, as runtimes do."""
    assert split(b"/a//b/./c/../d/") == [b"a", b"b", b"d"]
    assert paths([file("/etc/x"), file("./y"), file("a/../z")]) == ["etc", "etc/x", "y", "z"]


def test_missing_parents_are_made() -> None:
    """Folders that no layer lists are 0755 root:root."""
    tree = flat([file("a/b/c")])
    assert (tree["a"].mode, tree["a/b"].uid, tree["a/b"].mtime) == (stat.S_IFDIR | 0o755, 0, 0)


def test_parent_that_is_a_file_is_refused() -> None:
    """A file cannot hold files."""
    with pytest.raises(DataError, match="layer 2: 'a' is not a folder"):
        flat([file("a")], [file("a/b")])


def test_aufs_housekeeping_is_dropped() -> None:
    """`.wh..wh.*` never shows, and a hardlink into it still finds its file."""
    layer = [
        folder(".wh..wh.plnk"),
        file(".wh..wh.plnk/12.34", b"data"),
        file(".wh..wh.aufs"),
        folder(".wh..wh.orph"),
        hardlink("a", ".wh..wh.plnk/12.34"),
    ]
    tree = flat(layer)
    assert [path for path in tree if path] == ["a"]
    assert text(tree["a"]) == "data"


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh.", ".wh.d/x"])
def test_broken_whiteouts_are_refused(name: str) -> None:
    """A whiteout of nothing, of `.`, of `..`, or with files below it would remove or show the wrong thing."""
    with pytest.raises(DataError, match="not a valid whiteout"):
        flat([folder("d"), file("d/x")], [file(name)])


def test_special_files_and_attributes_are_kept() -> None:
    """Devices, fifos, set-id bits, owners above 65535, xattrs and fractions of seconds come through."""
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    tree = flat(
        [
            device("null", b"3", 1, 3),
            device("disk", b"4", 259, 70000),
            device("pipe", b"6"),
            file("ping", b"x", mode=0o6755, uid=100000, gid=4294967294, mtime=-1.25, pax_headers={"mtime": "-1.25"}),
        ]
    )
    assert (tree["null"].mode, tree["null"].rdev) == (stat.S_IFCHR | 0o600, 0x103)
    assert tree["disk"].mode == stat.S_IFBLK | 0o600
    assert tree["pipe"].mode == stat.S_IFIFO | 0o600
    ping = tree["ping"]
    assert (ping.mode, ping.uid, ping.gid, ping.mtime, ping.mtime_ns) == (
        stat.S_IFREG | 0o6755,
        100000,
        4294967294,
        -2,
        750_000_000,
    )
    member = Member(
        b"f",
        stat.S_IFREG | 0o755,
        xattrs={b"security.capability": capability, b"user.x": b"", b"com.apple.quarantine": b"q"},
    )
    _, entry = flatten([[member]])
    assert entry.xattrs == {b"security.capability": capability, b"user.x": b""}


def test_name_limits() -> None:
    """255 bytes of a name and 4095 of a path are possible, more is an error."""
    assert paths([file("n" * 255)]) == ["n" * 255]
    for name in ("n" * 256, "n" * 256 + "/x", "d/" * 2100 + "x"):
        with pytest.raises(DataError, match=r"more than 255 bytes|longer than 4095 bytes"):
            flat([file(name)])


def test_paths_that_grow_through_symlinks_are_refused() -> None:
    """A symlink to a deep folder cannot be used to go deeper than a path can say."""
    deep = "d" * 200 + "/"
    layer = [folder(deep * 15), symlink("s", deep * 15), file("s/" + deep * 15 + "x")]
    with pytest.raises(DataError, match="longer than 4095 bytes"):
        flat(layer)


def test_too_many_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parents that are made count too."""
    monkeypatch.setattr("shed.oci.flatten.MAX_FILES", 10)
    assert len(paths([file(f"f{number}") for number in range(10)])) == 10
    with pytest.raises(DataError, match="more than 10 files"):
        flat([file("a/b/c/d/e/f/g/h/i/j/k")])


def test_symlink_without_target_is_refused() -> None:
    """Linux has no empty symlinks."""
    with pytest.raises(DataError, match="is a symlink to 0 bytes"):
        flat([symlink("s", "")])


def test_layers_are_read_in_order_and_named_in_errors() -> None:
    """An error says which layer, counted from the bottom."""
    with pytest.raises(DataError, match="layer 3: "):
        list(flatten(members(tar(item)) for item in (file("a"), file("b"), file("../c"))))


def test_attributes_of_overlayfs_are_left_out() -> None:
    """Those of an upper layer that became an image: in a lower layer they would hide it, or look for it elsewhere."""
    xattrs = {"trusted.overlay.metacopy": "", "trusted.overlay.redirect": "/x", "trusted.overlay.opaque": "x"}
    kept = {"trusted.overlaying": "1", "user.overlay.opaque": "y", "security.capability": "c"}
    headers = {f"SCHILY.xattr.{name}": value for name, value in {**xattrs, **kept}.items()}
    tree = flat([file("f", b"x", pax_headers=headers), folder("d", pax_headers=headers)])
    for path in ("f", "d"):
        assert {name.decode() for name in tree[path].xattrs} == set(kept)
