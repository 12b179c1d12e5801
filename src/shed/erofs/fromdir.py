"""A folder on disk as a stream of entries."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from shed.entries import Entry


class FileContent:
    """The bytes of a file on disk, which is opened each time it is read: a tree may have more files than a process may open."""

    __slots__ = ("_path",)

    def __init__(self, path: bytes) -> None:
        self._path = path

    def pread(self, length: int, offset: int) -> bytes:
        """Return up to `length` bytes at `offset`."""
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return os.pread(fd, length, offset)
        finally:
            os.close(fd)


def entries_from_dir(root: Path, *, mtime: int | None = None, owner: tuple[int, int] | None = None) -> Iterator[Entry]:
    """Yield what is in the folder `root`, sorted as a writer wants it.

    `mtime` replaces every time and `owner` every uid and gid, so that the result does not depend on who made the
    folder, and when. Hardlinks within the tree stay hardlinks.  Errors of reading the folder are passed on.
    """
    seen: dict[tuple[int, int], bytes] = {}
    pending = [b""]
    top = os.fsencode(root)
    while pending:
        path = pending.pop()
        full = top + b"/" + path if path else top
        status = os.lstat(full) if path else os.stat(full)  # noqa: PTH116  # these paths are bytes
        entry = _entry(path, full, status, seen)
        if mtime is not None:
            entry.mtime, entry.mtime_ns = mtime, 0
        if owner is not None:
            entry.uid, entry.gid = owner
        yield entry
        if stat.S_ISDIR(status.st_mode):
            names = sorted(os.listdir(full), reverse=True)  # noqa: PTH208
            pending += [path + b"/" + name if path else name for name in names]


def _entry(path: bytes, full: bytes, status: os.stat_result, seen: dict[tuple[int, int], bytes]) -> Entry:
    entry = Entry(
        path,
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns // 1_000_000_000,
        status.st_mtime_ns % 1_000_000_000,
        xattrs={
            os.fsencode(name): os.getxattr(full, name, follow_symlinks=False)
            for name in os.listxattr(full, follow_symlinks=False)
        },
    )
    if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
        first = seen.setdefault((status.st_dev, status.st_ino), path)
        if first != path:
            entry.link = first
            return entry
    if stat.S_ISREG(status.st_mode):
        entry.size = status.st_size
        entry.content = FileContent(full)
    elif stat.S_ISLNK(status.st_mode):
        entry.target = os.readlink(full)  # noqa: PTH115
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        entry.rdev = status.st_rdev
    return entry
