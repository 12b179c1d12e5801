"""How a runtime carries a ready-made writable layer: of a file that is nearly all zeros, the blocks that are not.

::

    8 bytes        shedup01; another layout has another number
    4 bytes        blocks of 4096 bytes that the file has
    4 bytes        n, blocks that are here
    4 bytes        CRC-32 (as in zlib) of all that follows
    4 bytes * n    which blocks these are, ascending
    4096 bytes * n the blocks, in the same order

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

_BLOCK = 4096
_HEADER = struct.Struct("<8sIII")
_MAGIC = b"shedup01"


def pack(path: Path) -> bytes:
    """Return what holds the sparse file `path`, a whole number of blocks long."""
    with path.open("rb") as file:
        blocks = os.fstat(file.fileno()).st_size // _BLOCK
        found = list(_not_zero(file.fileno()))
    body = struct.pack(f"<{len(found)}I", *(number for number, _ in found)) + b"".join(block for _, block in found)
    return _HEADER.pack(_MAGIC, blocks, len(found), zlib.crc32(body)) + body


def unpack(data: bytes, size: int, file: BinaryIO) -> None:
    """Write the file of `size` bytes that `data` holds into the empty `file`, with its holes.

    Raises `DataError` before anything is written.
    """
    if len(data) < _HEADER.size or not data.startswith(_MAGIC):
        raise DataError("not a ready-made writable layer that this version knows")
    _, blocks, stored, checksum = _HEADER.unpack_from(data)
    if blocks * _BLOCK != size:
        raise DataError(f"{blocks * _BLOCK} bytes instead of {size}")
    if len(data) != _HEADER.size + stored * (4 + _BLOCK) or zlib.crc32(data[_HEADER.size :]) != checksum:
        raise DataError("damaged: the length or the checksum is wrong")
    numbers = struct.unpack_from(f"<{stored}I", data, _HEADER.size)
    if any(later <= number for number, later in pairwise((*numbers, blocks))):
        raise DataError("damaged: blocks in disorder or beyond the end")
    file.truncate(size)
    start = len(data) - stored * _BLOCK
    for index, number in enumerate(numbers):
        file.seek(number * _BLOCK)
        file.write(data[start + index * _BLOCK : start + (index + 1) * _BLOCK])


def _not_zero(fd: int) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each block that is not all zeros."""
    zeros = bytes(_BLOCK)
    size, position = os.fstat(fd).st_size, 0
    while position < size:
        try:
            data = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        position = -(-os.lseek(fd, data, os.SEEK_HOLE) // _BLOCK) * _BLOCK
        for offset in range(data // _BLOCK * _BLOCK, position, _BLOCK):
            block = os.pread(fd, _BLOCK, offset)
            if block != zeros:
                yield offset // _BLOCK, block
