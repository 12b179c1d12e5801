"""Which kit a store has, and what is said when there is none."""

import json
from pathlib import Path

import pytest

from shed.errors import DataError, NotFoundError
from shed.images.bootkit.build import save_kit
from shed.images.bootkit.kit import KIT_FILE, Kit, load_kit
from shed.oci.store import LayoutStore

RECORD = {"architecture": "amd64", "kernel_release": "6.12.1", "erofs_algorithms": ["lz4", "zstd"]}


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    """Return a store with a kit of three small blobs."""
    store = LayoutStore(tmp_path / "images")
    save_kit(store, Kit(store.put_bytes(b"kernel"), store.put_bytes(b"initrd"), store.put_bytes(b"runtime"), RECORD))
    return store


def test_a_kit_comes_back_as_it_was_saved(store: LayoutStore) -> None:
    """Digests and record."""
    kit = load_kit(store)
    assert store.blob_path(kit.initrd).read_bytes() == b"initrd"
    assert kit.record == RECORD
    assert kit.erofs_algorithms == ["lz4", "zstd"]


def test_without_a_kit_the_command_that_makes_it_is_named(tmp_path: Path) -> None:
    """An empty folder, and one that does not exist."""
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(NotFoundError, match="there is no boot kit yet") as caught:
            load_kit(LayoutStore(folder))
        assert caught.value.hint == "make it: shed image bootkit build"


@pytest.mark.parametrize("name", ["kernel", "initrd", "runtime"])
def test_a_blob_that_is_gone_is_named(store: LayoutStore, name: str) -> None:
    """Each of the three."""
    store.blob_path(getattr(load_kit(store), name)).unlink()
    with pytest.raises(NotFoundError, match=f"the {name} of the boot kit, sha256:[0-9a-f]{{12}}, is not in the store"):
        load_kit(store)


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": "../../etc/passwd"},
        {"initrd": 7},
        {"runtime": None},
        {"record": []},
        {"record": {}},
        {"record": {**RECORD, "erofs_algorithms": "lz4"}},
        {"record": {**RECORD, "kernel_release": None}},
    ],
)
def test_a_damaged_kit_file_is_named(store: LayoutStore, change: dict[str, object]) -> None:
    """Wrong digests and wrong types; never a traceback."""
    path = store.root / KIT_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match=r"kit\.json is damaged"):
        load_kit(store)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"kernel": 1}', "\x00"])
def test_a_kit_file_of_something_else_is_named(store: LayoutStore, text: str) -> None:
    """Cut, or no object at all."""
    (store.root / KIT_FILE).write_text(text)
    with pytest.raises(DataError, match=r"kit\.json is damaged"):
        load_kit(store)
