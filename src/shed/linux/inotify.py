"""Being told which folders come and go in folders.  Source: inotify(7)."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import NamedTuple

_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_NAMES = _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
_Q_OVERFLOW, _ISDIR = 0x4000, 0x40000000
_ONLYDIR, _EXCL_UNLINK = 0x01000000, 0x04000000
_EVENT = struct.Struct("=iIII")
_READ = 64 * 1024

_LOCAL = frozenset({
    0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, 0x01021994, 0x794C7630, 0x2FC12FC1, 0xCA451A4E,
})  # fmt: skip
"""ext2 to ext4, xfs, btrfs, f2fs, tmpfs, overlay, zfs, bcachefs: linux/magic.h, and those of the last two."""
_STATFS_SIZE = 256

_libc = ctypes.CDLL(None, use_errno=True)


class Change(NamedTuple):
    """A folder that came to, or went from, a watched one.  Of an overflow, the number of the watched one is -1."""

    folder: int
    name: bytes
    came: bool


def tells_all(descriptor: int) -> bool:
    """Say whether a file system is one of which all changes are told; of one that others can change, they are not."""
    found = ctypes.create_string_buffer(_STATFS_SIZE)
    if _libc.fstatfs(descriptor, found) < 0:
        return False
    return int.from_bytes(found.raw[:8], "little") & 0xFFFFFFFF in _LOCAL


class Inotify:
    """Watches folders.  `fd` can be read when there are changes."""

    def __init__(self) -> None:
        """Raises `OSError`."""
        self.fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "inotify")

    def watch(self, descriptor: int) -> int:
        """Watch the folder behind a descriptor; return its number.  Raises `OSError`: ENOSPC for too many."""
        path = f"/proc/self/fd/{descriptor}".encode()
        number: int = _libc.inotify_add_watch(self.fd, path, _NAMES | _ONLYDIR | _EXCL_UNLINK)
        if number < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "inotify")
        return number

    def forget(self, number: int) -> None:
        """Watch a folder no longer; nothing happens when it is not."""
        _libc.inotify_rm_watch(self.fd, number)

    def read(self) -> list[Change]:
        """Return the changes that are there.  Raises `OSError`."""
        try:
            data = os.read(self.fd, _READ)
        except BlockingIOError:
            return []
        changes, at = [], 0
        while at < len(data):
            number, mask, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            name = data[at : at + length].rstrip(b"\0")
            at += length
            if mask & _Q_OVERFLOW:
                changes.append(Change(-1, b"", came=False))
            elif mask & _NAMES and mask & _ISDIR:
                changes.append(Change(number, name, came=bool(mask & (_MOVED_TO | _CREATE))))
        return changes

    def close(self) -> None:
        """Watch nothing any more."""
        os.close(self.fd)
