"""Layers made of two trees: put on the old one, each gives the new one."""

import os
import random
import stat
import subprocess
import tarfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shed.entries import Entry
from shed.oci.diff import diff
from shed.oci.flatten import flatten
from shed.oci.tarwrite import write_tar
from support.layers.tars import Item, device, file, folder, hardlink, members, symlink, tar


def layer(entries: Iterable[Entry]) -> bytes:
    """Return entries as a tar archive."""
    out = BytesIO()
    out.writelines(write_tar(entries))
    return out.getvalue()


def tree(*layers: bytes) -> list[Entry]:
    """Return the merged tree of layers."""
    return list(flatten([members(data) for data in layers]))


def facts(entries: Iterable[Entry]) -> dict[bytes, object]:
    """Return all that a tree shows, by path; what names are one file, too."""
    return {
        entry.path: entry.link
        or (
            (entry.mode, entry.uid, entry.gid, entry.mtime, entry.mtime_ns, entry.rdev, entry.size, entry.target),
            dict(entry.xattrs),
            entry.content.pread(entry.size, 0) if entry.content else b"",
        )
        for entry in entries
    }


def changes(old: list[Item], new: list[Item]) -> list[str]:
    """Return the paths in the layer from `old` to `new`, after checking that it does what it should."""
    below, above = tar(*old), tar(*new)
    made = layer(diff(tree(below), tree(above)))
    assert facts(tree(below, made)) == facts(tree(above))
    assert made == layer(diff(tree(below), tree(above)))
    return [member.name.decode() for member in members(made)]


BASE = [folder("d"), file("d/a", b"1"), file("d/b", b"2"), folder("e"), file("e/x"), file("top", b"t")]
CAPABLE = file("d/a", b"1", pax_headers={"SCHILY.xattr.security.capability": "\x01\x02"})


@pytest.mark.parametrize(
    ("new", "layer_holds"),
    [
        (BASE, []),
        ([*BASE, file("d/c", b"3")], ["./", "d/", "d/c"]),
        ([*BASE[:2], file("d/b", b"X"), *BASE[3:]], ["./", "d/", "d/b"]),
        ([*BASE[:2], *BASE[3:]], ["./", "d/", "d/.wh.b"]),
        (BASE[3:], ["./", ".wh.d"]),
        ([*BASE[3:], file("d", b"a file now")], ["./", "d"]),
        ([*BASE[:5], folder("top"), file("top/in")], ["./", "top/", "top/in"]),
        ([folder("d", mode=0o700), *BASE[1:]], ["./", "d/"]),
        ([folder("."), *BASE], []),
        ([folder(".", mode=0o700), *BASE], ["./"]),
        ([*BASE, hardlink("e/a", "d/a")], ["./", "d/", "d/a", "e/", "e/a"]),
        ([*BASE[:1], CAPABLE, *BASE[2:]], ["./", "d/", "d/a"]),
        (
            [*BASE, symlink("l", "d/a"), device("n", tarfile.CHRTYPE, 1, 3), device("p", tarfile.FIFOTYPE)],
            ["./", "l", "n", "p"],
        ),
    ],
)
def test_a_layer_holds_what_changed_and_the_folders_above(new: list[Item], layer_holds: list[str]) -> None:
    """Additions, changes, removals, and a file in place of a folder or the other way around."""
    assert changes(BASE, new) == layer_holds


def test_all_names_of_a_changed_file_are_in_the_layer() -> None:
    """No link leads into a lower layer, and a link that becomes a file of its own is one."""
    linked = [file("a", b"1"), hardlink("b", "a"), hardlink("c", "a")]
    assert changes(linked, linked) == []
    assert changes(linked, [file("a", b"2"), hardlink("b", "a"), hardlink("c", "a")]) == ["./", "a", "b", "c"]
    assert changes(linked, linked[:2]) == ["./", ".wh.c", "a", "b"]
    assert changes(linked, [file("a", b"1"), file("b", b"1"), file("c", b"1")]) == ["./", "a", "b", "c"]
    assert changes(linked, [file("b", b"1"), hardlink("c", "b")]) == ["./", ".wh.a", "b", "c"]


def test_what_ustar_cannot_hold_survives() -> None:
    """Long names and targets, large owners, times with fractions and before 1970, attributes of any bytes."""
    long = b"/".join([b"n" * 200] * 4)
    any_bytes = {b"user.x": bytes(range(256))}
    entries = [
        Entry(b"", stat.S_IFDIR | 0o755, mtime=-5, mtime_ns=250_000_000),
        Entry(
            b"\xff\xfe", stat.S_IFREG | 0o4755, uid=3_000_000, gid=4_000_000_000, mtime=7, mtime_ns=1, xattrs=any_bytes
        ),
        Entry(b"l", stat.S_IFLNK | 0o777, target=long, mtime=1 << 40),
        *(
            Entry(b"/".join([b"n" * 200] * depth), stat.S_IFDIR | 0o755, mtime=-1, mtime_ns=999_999_999)
            for depth in range(1, 5)
        ),
    ]
    assert facts(tree(layer(entries))) == facts(entries)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(0, 1 << 32))
def test_any_tree_becomes_any_other(seed_old: int, seed_new: int) -> None:
    """Random trees of a few names, so that types meet each other in every way."""
    below, above = layer(_random_tree(seed_old)), layer(_random_tree(seed_new))
    made = layer(diff(tree(below), tree(above)))
    assert facts(tree(below, made)) == facts(tree(above))


def _random_tree(seed: int) -> list[Entry]:
    chance = random.Random(seed)
    entries = [Entry(b"", stat.S_IFDIR | 0o755)]
    files: list[bytes] = []

    def fill(prefix: bytes, depth: int) -> None:
        for name in (b"a", b"b", b"c"):
            path = prefix + name
            kind = chance.choice(["none", "file", "folder", "symlink", "link"])
            if kind == "folder" and depth < 3:
                entries.append(Entry(path, stat.S_IFDIR | chance.choice([0o755, 0o700])))
                fill(path + b"/", depth + 1)
            elif kind == "symlink":
                entries.append(Entry(path, stat.S_IFLNK | 0o777, target=chance.choice([b"x", b"y"])))
            elif kind == "link" and files:
                entries.append(Entry(path, 0, link=chance.choice(files)))
            elif kind == "file":
                files.append(path)
                entries.append(Entry(path, stat.S_IFREG | 0o644, mtime=chance.choice([0, 1])))

    fill(b"", 0)
    return entries


@pytest.mark.root
def test_gnu_tar_and_the_kernel_agree(tmp_path: Path) -> None:
    """What we write, GNU tar unpacks to the same attributes, capabilities too."""
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    entries = [
        Entry(b"", stat.S_IFDIR | 0o755),
        Entry(b"f", stat.S_IFREG | 0o755, uid=7, gid=8, mtime=9, xattrs={b"security.capability": capability}),
        Entry(b"g", 0, link=b"f"),
        Entry(b"null", stat.S_IFCHR | 0o666, rdev=os.makedev(1, 3)),
        Entry(b"x" * 150, stat.S_IFLNK | 0o777, target=b"y" * 150),
    ]
    (tmp_path / "a.tar").write_bytes(layer(entries))
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xpf", "a.tar", "-C", "out", "--xattrs", "--xattrs-include=*"], cwd=tmp_path, check=True)
    made = (tmp_path / "out/f").stat()
    assert (made.st_mode & 0o7777, made.st_uid, made.st_gid, made.st_mtime, made.st_nlink) == (0o755, 7, 8, 9, 2)
    assert os.getxattr(tmp_path / "out/f", "security.capability") == capability
    assert (tmp_path / "out/null").stat().st_rdev == os.makedev(1, 3)
    assert (tmp_path / "out" / ("x" * 150)).readlink() == Path("y" * 150)
