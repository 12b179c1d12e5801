"""What images may take of a disk."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from shed.budget import Budget, Limits, Reserve
from shed.errors import DataError, StorageError
from shed.oci.store import LayoutStore
from shed.sizes import GIB


def disk(monkeypatch: pytest.MonkeyPatch, *, size: int, free: int) -> None:
    """Have every file system hold `size` bytes, `free` of them for us."""
    state = SimpleNamespace(f_frsize=4096, f_blocks=size // 4096, f_bavail=free // 4096)
    monkeypatch.setattr("shed.budget.os.statvfs", lambda path: state)


@pytest.mark.parametrize(("size", "kept"), [(10 * GIB, GIB // 2), (20 * GIB, GIB), (10_000 * GIB, GIB)])
def test_a_part_of_the_disk_stays_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: int, kept: int) -> None:
    """A gibibyte, or five per cent of a small one; the last byte that may be taken is taken."""
    disk(monkeypatch, size=size, free=kept + (1 << 20))
    Reserve(tmp_path).check(1 << 20)
    with pytest.raises(StorageError, match="too little space") as caught:
        Reserve(tmp_path).check((1 << 20) + 1)
    assert (caught.value.code, caught.value.http_status) == ("DISK_RESERVE", 507)
    Reserve(tmp_path, 0).check(kept)


def test_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    """Its file system is that of the nearest one above it."""
    Reserve(tmp_path / "a/b/c", 0).check()
    with pytest.raises(StorageError, match="a/b/c"):
        Reserve(tmp_path / "a/b/c", 1 << 60).check()


def test_a_budget_is_for_all_of_it(tmp_path: Path) -> None:
    """What is expected takes nothing; what is spent is gone, and more is refused with both sentences."""
    allowed = Budget(3 * GIB, reserve=Reserve(tmp_path, 0), what="the image has", hint="less")
    allowed.expect(3 * GIB)
    allowed.spend(2 * GIB)
    with pytest.raises(DataError, match="the image has 1 GiB; at most 3 GiB are allowed") as caught:
        allowed.expect(GIB + 1)
    assert (caught.value.code, caught.value.hint) == ("IMAGE_TOO_LARGE", "less")
    allowed.spend(GIB)
    with pytest.raises(DataError):
        allowed.spend(1)


def test_a_store_keeps_its_reserve(tmp_path: Path) -> None:
    """Whatever is written to it, and nothing is left of what was refused."""
    store = LayoutStore(tmp_path, Limits(disk_reserve=1 << 60))
    with pytest.raises(StorageError, match="too little space"):
        store.put_bytes(b"blob")
    assert [path for path in store.blobs.iterdir() if path.suffix != ".lock"] == []
