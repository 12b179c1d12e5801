"""An image on another: settings are merged, and the new tree becomes one layer."""

from pathlib import Path

from shed.images.recipe import merge_settings, open_parent, pack_derived
from shed.oci.pack import pack_archive
from support.layers.tars import device, file, folder, hardlink, members, tar


def test_settings_go_over_the_parents() -> None:
    """Variables and labels one by one, in the parent's order; lists and words as a whole."""
    parent = {"Env": ["PATH=/bin", "LANG=C"], "Labels": {"a": "1", "b": "2"}, "Cmd": ["sh"], "User": "shed"}
    own = {"Env": ["LANG=C.UTF-8", "X=1"], "Labels": {"b": "3"}, "Cmd": ["bash"]}
    assert merge_settings(parent, own) == {
        "Env": ["PATH=/bin", "LANG=C.UTF-8", "X=1"],
        "Labels": {"a": "1", "b": "3"},
        "Cmd": ["bash"],
        "User": "shed",
    }
    assert merge_settings({}, {}) == {}


def test_a_derived_image_shows_the_new_tree(tmp_path: Path) -> None:
    """From the parent's root, which has no devices in it, to an archive whose tree is the one that came of it."""
    (tmp_path / "0.tar").write_bytes(tar(folder("dev"), device("dev/null", b"3", 1, 3), file("a", b"1"), file("b")))
    pack_archive(tmp_path / "lower", [tmp_path / "0.tar"], settings={"User": "shed"})
    new = tar(folder("dev"), device("dev/null", b"3", 1, 3), file("a", b"2"), hardlink("c", "a"))
    (tmp_path / "new.tar").write_bytes(new)
    with open_parent(tmp_path / "lower", scratch=tmp_path) as parent:
        parent.write_root(tmp_path / "root.tar")
        pack_derived(
            tmp_path / "upper", parent, tmp_path / "new.tar", settings={"Cmd": ["x"]}, name="n", created_by="test"
        )
    names = [member.name for member in members((tmp_path / "root.tar").read_bytes())]
    assert names == [b"./", b"a", b"b", b"dev/"]
    with open_parent(tmp_path / "upper", scratch=tmp_path) as derived:
        assert [(entry.path, entry.link) for entry in derived.entries] == [
            (b"", None),
            (b"a", None),
            (b"c", b"a"),
            (b"dev", None),
            (b"dev/null", None),
        ]
        assert derived.chosen.config.settings == {"User": "shed", "Cmd": ["x"]}
