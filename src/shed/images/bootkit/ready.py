"""How a runtime carries a ready-made writable layer: of a file that is nearly all zeros, the blocks that are not.

::

    offset  bytes
    0       8       shedup01; another layout has another number
    8       4       blocks of 4096 bytes that the file has
    12      4       n, blocks that are here
    16      4       CRC-32 (as in zlib) of all that follows
    20      4 * n   which blocks these are, ascending
    ...     4096 * n  the blocks, in the same order

Numbers are little-endian.  The layout is shed's own.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from shed.errors import DataError

BLOCK = 4096
_HEADER = struct.Struct("<8sIII")
_MAGIC = b"shedup01"


def pack(path: Path) -> bytes:
    """Return what holds the sparse file `path`, a whole number of blocks long."""
    with path.open("rb") as file:
        blocks = os.fstat(file.fileno()).st_size // BLOCK
        found = list(_not_zero(file.fileno()))
    body = struct.pack(f"<{len(found)}I", *(number for number, _ in found)) + b"".join(block for _, block in found)
    return _HEADER.pack(_MAGIC, blocks, len(found), zlib.crc32(body)) + body


def unpack(data: bytes, size: int, file: BinaryIO) -> None:
    """Write the file of `size` bytes that `data` holds into the empty `file`, with its holes.

    Raises `DataError`, which says what is wrong with `data`, before anything is written.
    """
    if len(data) < _HEADER.size or not data.startswith(_MAGIC):
        raise DataError("is not a ready-made writable layer that this version knows")
    _, blocks, stored, checksum = _HEADER.unpack_from(data)
    if blocks * BLOCK != size:
        raise DataError(f"has {blocks * BLOCK} bytes instead of {size}")
    if len(data) != _HEADER.size + stored * (4 + BLOCK) or zlib.crc32(data[_HEADER.size :]) != checksum:
        raise DataError("is damaged: its length or its checksum is wrong")
    numbers = struct.unpack_from(f"<{stored}I", data, _HEADER.size)
    if any(later <= number for number, later in pairwise((*numbers, blocks))):
        raise DataError("has blocks in disorder or beyond its end")
    file.truncate(size)
    start = len(data) - stored * BLOCK
    for index, number in enumerate(numbers):
        file.seek(number * BLOCK)
        file.write(data[start + index * BLOCK : start + (index + 1) * BLOCK])


def _not_zero(fd: int) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each block that is not all zeros."""
    zeros = bytes(BLOCK)
    size, position = os.fstat(fd).st_size, 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA) // BLOCK * BLOCK
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        position = -(-os.lseek(fd, start, os.SEEK_HOLE) // BLOCK) * BLOCK
        for offset in range(start, position, BLOCK):
            block = os.pread(fd, BLOCK, offset)
            if block != zeros:
                yield offset // BLOCK, block
