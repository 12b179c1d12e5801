"""Writes newc cpio archives, the format of an initial RAM file system.

Format: Documentation/driver-api/early-userspace/buffer-format.rst of the Linux kernel.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import BinaryIO

from shed.entries import Entry

_TRAILER = b"TRAILER!!!"
_BLOCK = 512


def write_cpio(entries: Iterable[Entry], out: BinaryIO) -> None:
    """Write `entries` to `out` as one archive, padded to 512 bytes.

    Hardlinks and xattrs do not exist in it and are refused.

    The same entries give the same bytes: inode numbers are counted, owners and times are those of the entries.
    """
    written = 0
    for number, entry in enumerate(entries, 1):
        if entry.link is not None or entry.xattrs:
            raise ValueError(f"{entry.path!r}: no hardlinks or xattrs in an initrd")
        written += _member(out, number, entry, entry.path or b".")
    written += _member(out, 0, Entry(_TRAILER, 0), _TRAILER)
    out.write(bytes(-written % _BLOCK))


def _member(out: BinaryIO, number: int, entry: Entry, name: bytes) -> int:
    data = entry.content.pread(entry.size, 0) if entry.content else entry.target
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        number, entry.mode, entry.uid, entry.gid, links, entry.mtime, len(data),
        0, 0, os.major(entry.rdev), os.minor(entry.rdev), len(name) + 1, 0,
    )  # fmt: skip
    header = b"070701" + b"".join(b"%08X" % value for value in fields) + name + b"\0"
    header += bytes(-len(header) % 4)
    return out.write(header) + out.write(data) + out.write(bytes(-len(data) % 4))
