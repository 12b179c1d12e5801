"""A folder on disk as entries."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from shed.erofs.tree import entries_from_dir
from shed.erofs.verifier import verify_contents
from shed.erofs.writer import write_image


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    top = tmp_path / "top"
    (top / "b").mkdir(parents=True)
    (top / "b-").mkdir(mode=0o700)
    (top / "b" / "file").write_bytes(b"content")
    (top / "b-" / "empty").touch(0o600)
    (top / "link").symlink_to("b/file")
    (top / "again").hardlink_to(top / "b" / "file")
    os.mkfifo(top / "fifo")
    os.utime(top / "b" / "file", ns=(0, 1_234_567_890_123_456_789))
    return top


def test_entries_are_sorted_by_components(sample: Path) -> None:
    """A folder is followed by what it holds, also where another name would sort between."""
    paths = [entry.path for entry in entries_from_dir(sample)]
    assert paths == [b"", b"again", b"b", b"b/file", b"b-", b"b-/empty", b"fifo", b"link"]


def test_attributes_are_those_of_the_disk(sample: Path) -> None:
    """Types, modes, nanoseconds, targets, hardlinks and bytes."""
    entries = {entry.path: entry for entry in entries_from_dir(sample)}
    assert entries[b"b-"].mode == stat.S_IFDIR | 0o700
    assert entries[b"b/file"].link == b"again"
    again = entries[b"again"]
    assert (again.mtime, again.mtime_ns) == (1_234_567_890, 123_456_789)
    assert again.content is not None
    assert again.content.pread(100, 3) == b"tent"
    assert entries[b"link"].target == b"b/file"
    assert stat.S_ISFIFO(entries[b"fifo"].mode)
    assert entries[b""].uid == os.getuid()


def test_time_and_owner_can_be_fixed(sample: Path) -> None:
    """So that the result does not depend on who made the folder, and when."""
    entries = list(entries_from_dir(sample, mtime=77, owner=(1, 2)))
    assert {(entry.mtime, entry.mtime_ns, entry.uid, entry.gid) for entry in entries} == {(77, 0, 1, 2)}


def test_an_image_of_a_folder_is_read_back(sample: Path, tmp_path: Path) -> None:
    """Folder to image and back."""
    with (tmp_path / "image").open("w+b") as out:
        write_image(entries_from_dir(sample), out)
    verify_contents(tmp_path / "image", entries_from_dir(sample))


def test_a_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    """Errors of the disk are passed on."""
    with pytest.raises(FileNotFoundError):
        list(entries_from_dir(tmp_path / "gone"))
