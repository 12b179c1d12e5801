"""Which pieces of a file's data other files have, too, because one is a clone of the other.  Source: linux/fiemap.h."""

from __future__ import annotations

import fcntl
import struct

_FS_IOC_FIEMAP = 0xC020660B
_HEAD = struct.Struct("=QQIII4x")
"""Start, length, flags, extents that were found, extents that there is room for."""
_EXTENT = struct.Struct("=QQQ16xI12x")
"""Where it is in the file, where on the disk, its length, flags."""
_LAST, _UNKNOWN, _SHARED = 0x1, 0x2, 0x2000
_AT_ONCE = 512
_MOST = 100_000
"""Extents of one file that are told: a guest may cut its disk into millions."""
_TO_THE_END = (1 << 64) - 1


def shared_extents(file: int) -> list[tuple[int, int]]:
    """Return where on the disk the extents are that the open `file` shares with others, and their lengths in bytes.

    Neighbours are one; those beyond the first 100,000 are left out.  Raises `OSError` where the file system does not
    tell.
    """
    found: list[tuple[int, int]] = []
    start = 0
    while len(found) < _MOST:
        buffer = bytearray(_HEAD.pack(start, _TO_THE_END - start, 0, 0, _AT_ONCE) + bytes(_AT_ONCE * _EXTENT.size))
        fcntl.ioctl(file, _FS_IOC_FIEMAP, buffer)
        count = _HEAD.unpack_from(buffer)[3]
        if not count:
            break
        for number in range(count):
            logical, physical, length, flags = _EXTENT.unpack_from(buffer, _HEAD.size + number * _EXTENT.size)
            start = logical + length
            if not flags & _SHARED or flags & _UNKNOWN:
                continue
            if found and sum(found[-1]) == physical:
                found[-1] = found[-1][0], found[-1][1] + length
            else:
                found.append((physical, length))
        if flags & _LAST:
            break
    return found
