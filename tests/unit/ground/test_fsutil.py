"""Atomic files, locks, sparse copies."""

import errno
import multiprocessing
import os
import subprocess
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from shed.errors import ConflictError, StorageError
from shed.fsutil import _copy_data_extents, atomic_file, atomic_write, can_link, clone_file, locked, storage_errors


def test_atomic_write_replaces_content_and_sets_the_mode(tmp_path: Path) -> None:
    """The new content and mode are there, and nothing else."""
    path = tmp_path / "state.json"
    atomic_write(path, "old")
    atomic_write(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    """An exception in the block is as if the block had never run."""
    path = tmp_path / "state.json"
    atomic_write(path, "old")
    with pytest.raises(RuntimeError), atomic_file(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
def test_the_disks_refusals_name_the_path_and_a_next_step(tmp_path: Path, number: int) -> None:
    """The user reads which file, why, and what to do."""
    with pytest.raises(StorageError) as caught, storage_errors(tmp_path / "blob"):
        raise OSError(number, "x")
    assert str(tmp_path / "blob") in caught.value.message
    assert caught.value.hint


def test_other_os_errors_pass_unchanged(tmp_path: Path) -> None:
    """A bug is not dressed up as a full disk."""
    with pytest.raises(FileNotFoundError), storage_errors(tmp_path):
        raise FileNotFoundError


def _hold(path: Path, pipe: Connection) -> None:
    with locked(path):
        pipe.send("held")
        pipe.recv()


def test_a_lock_holds_between_processes_and_its_file_stays(tmp_path: Path) -> None:
    """While one process holds it another is refused; afterwards it is free, and the file is still there."""
    path = tmp_path / ".lock"
    ours, theirs = multiprocessing.Pipe()
    holder = multiprocessing.get_context("spawn").Process(target=_hold, args=(path, theirs))
    holder.start()
    assert ours.recv() == "held"
    with pytest.raises(ConflictError) as caught, locked(path, wait=False):
        pass
    assert caught.value.code == "LOCKED"
    ours.send("go")
    holder.join()
    with locked(path, wait=False):
        assert path.exists()
    assert path.exists()
    ours.close()
    theirs.close()


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_clone_has_the_same_bytes_and_keeps_holes(tmp_path: Path, *, by_hand: bool) -> None:
    """A sparse file stays sparse, whether the file system can reflink or not."""
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(64 << 20)
        file.seek(10 << 20)
        file.write(os.urandom(10000))
        file.seek((64 << 20) - 3)
        file.write(b"end")
    target = tmp_path / "target"
    with target.open("w+b") as out, source.open("rb") as origin:
        if by_hand:
            _copy_data_extents(origin.fileno(), out.fileno())
        else:
            clone_file(source, out)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks * 512 < 1 << 20


@pytest.mark.root
@pytest.mark.parametrize("mount", [["-t", "tmpfs", "tmpfs"], ["--bind", "."]])
def test_what_cannot_be_linked_is_told(tmp_path: Path, mount: list[str]) -> None:
    """Another file system, and another mount of the same one; folders of one mount can."""
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    (tmp_path / "one/file").touch()
    subprocess.run(["mount", *mount, tmp_path / "two"], check=True, cwd=tmp_path / "three")
    try:
        for name, error in (("two", errno.EXDEV), ("three", 0)):
            assert can_link(tmp_path / "one", tmp_path / name) == (not error)
            seen: int | None = 0
            try:
                os.link(tmp_path / "one/file", tmp_path / name / "file")
            except OSError as refusal:
                seen = refusal.errno
            assert seen == error
    finally:
        subprocess.run(["umount", tmp_path / "two"], check=True)
