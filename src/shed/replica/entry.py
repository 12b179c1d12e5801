"""A file, folder or link, as far as two folders are compared."""

from __future__ import annotations

import ctypes
import os
import stat

FILE, LINK, FOLDER, OTHER = "f", "l", "d", "o"
_KINDS = {stat.S_IFREG: FILE, stat.S_IFLNK: LINK, stat.S_IFDIR: FOLDER}
libc = ctypes.CDLL(None, use_errno=True)


class ChangedError(Exception):
    """It is not what it was known to be: somebody else has changed it."""


class Entry:
    """A file, folder or link.  Of folders only the kind counts."""

    __slots__ = ("ctime", "inode", "kind", "link", "mode", "mtime", "size")

    def __init__(  # noqa: PLR0917  as a status has them
        self, kind: str, mode: int, size: int, mtime: int, ctime: int, inode: int, link: str = ""
    ) -> None:
        self.kind = kind
        self.mode = mode
        self.size = size
        self.mtime = mtime
        self.ctime = ctime
        self.inode = inode
        self.link = link

    @property
    def mark(self) -> tuple[int, int, int, int]:
        """What changes whenever the content of a file does, or its permissions do."""
        return (self.size, self.mtime, self.ctime, self.inode)

    def same(self, other: Entry | None) -> bool:
        """Tell whether nobody has changed it."""
        return other is not None and self.kind == other.kind and (self.kind == FOLDER or self.mark == other.mark)

    def encode(self) -> bytes:
        """Return it without `link`, as `decoded` reads it."""
        return b"%s %o %d %d %d %d" % (
            self.kind.encode(), self.mode, self.size, self.mtime, self.ctime, self.inode,
        )  # fmt: skip


def decoded(data: bytes, link: str = "") -> Entry:
    """Return the entry that `data` tells.  Raises `ValueError`."""
    kind, mode, *numbers = data.split(b" ")
    if kind not in (b"f", b"l", b"d", b"o") or len(numbers) != 4 or not mode.isdigit() or len(mode) > 6:
        raise ValueError("no entry")
    if not all(number.removeprefix(b"-").isdigit() and len(number) < 21 for number in numbers):
        raise ValueError("no number")
    size, mtime, ctime, inode = map(int, numbers)
    if size < 0:
        raise ValueError("no size")
    return Entry(kind.decode(), int(mode, 8) & 0o7777, size, mtime, ctime, inode, link)


def checked(result: int) -> int:
    """Return what a function of the C library has, or raise the `OSError` that it means."""
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def entry_of(status: os.stat_result, link: str = "") -> Entry:
    """Return what a status tells."""
    return Entry(
        _KINDS.get(stat.S_IFMT(status.st_mode), OTHER),
        stat.S_IMODE(status.st_mode),
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
        link,
    )


def entry_at(name: str, parent: int) -> Entry | None:
    """Return what is called `name` in an open folder."""
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        return entry_of(status, os.readlink(name, dir_fd=parent) if stat.S_ISLNK(status.st_mode) else "")
    except FileNotFoundError:
        return None


def unread() -> Entry:
    """Return an entry for what is there and cannot be read."""
    return Entry(OTHER, 0, 0, 0, 0, 0)
