"""The pieces of a disk, or of memory: which of them hold something, what they are packed, and how they are put back."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator

import zstandard

from shed.errors import DataError
from shed.fsutil import data_extents
from shed.oci.digest import Digest, digest_bytes, mismatch
from shed.sheds.artifact.document import Part

_LEVEL = 3
_local = threading.local()


def written(fd: int, size: int, chunk: int) -> Iterator[int]:
    """Yield the numbers of the chunks of the file `fd`, of `size` bytes, that are not holes, in order."""
    done = -1
    for start, end in data_extents(fd, size):
        for number in range(max(done + 1, start // chunk), -(-min(end, size) // chunk)):
            yield number
            done = number


def read(fd: int, start: int, length: int) -> bytes:
    """Return `length` bytes of the open file `fd` from `start`.  Raises `OSError`, also when it is shorter."""
    data = os.pread(fd, length, start)
    while len(data) < length:
        more = os.pread(fd, length - len(data), start + len(data))
        if not more:
            raise OSError(errno.EIO, "the file is shorter than it should be")
        data += more
    return data


def pack(data: bytes) -> bytes:
    """Return `data` as one zstd frame; the same bytes from the same version of the library, so that a push is cheap."""
    packer = getattr(_local, "packer", None)
    if packer is None:
        packer = _local.packer = zstandard.ZstdCompressor(level=_LEVEL)
    return bytes(packer.compress(data))


def unpack(data: bytes, length: int, content: Digest, what: str) -> bytes:
    """Return the `length` bytes with the digest `content` that `data` is packed.  Raises `DataError`."""
    try:
        if zstandard.frame_content_size(data) != length:
            raise DataError(f"{what} is not a chunk of {length} bytes", hint="get the snapshot again")
        result = zstandard.ZstdDecompressor().decompress(data, max_output_size=length)
    except zstandard.ZstdError as error:
        raise DataError(f"{what} cannot be unpacked: {error}", hint="get the snapshot again") from None
    if (found := digest_bytes(result)) != content:
        raise mismatch(what, content, found)
    return result


def write(fd: int, start: int, data: bytes) -> None:
    """Write `data` to the open file `fd` from `start`.  Raises `OSError`."""
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, start)
        view, start = view[count:], start + count


def has(fd: int, part: Part, number: int, content: Digest) -> bool:
    """Tell whether the file `fd`, which is to be `part`, has the chunk `content` in its place `number` already."""
    start, length = number * part.chunk_bytes, part.length(number)
    try:
        if os.lseek(fd, start, os.SEEK_DATA) >= start + length:
            return False
    except OSError as error:
        if error.errno == errno.ENXIO:
            return False
        raise
    return digest_bytes(read(fd, start, length)) == content
