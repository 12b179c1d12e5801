"""Makes the empty ext4 file systems that the writable layers of sheds start as, one of each size that many will want.

A shed of another size gets the next smaller one, which grows while mounted: its group descriptors have room for that.
Nothing in them depends on the machine or the time.

The runtime carries them packed: of a file that is nearly all zeros, the blocks that are not.

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
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from shed.errors import DataError
from shed.run import Argument, run

SMALL = 256 << 20
"""Bytes of the one that older hosts take, whatever size they want."""
READY = tuple(gib << 30 for gib in (1, 2, 5, 10, 20, 50, 100))
"""Bytes of the others."""
ROOM = 128 << 30
"""Bytes that each can grow to: more than a shed may have, because mke2fs refuses to leave room for no more than there
is.
"""
LABEL = "shed-upper"
_BLOCK = 4096
_JOURNAL_MB = 32
_UUID = "5ed00000-0000-4000-8000-000000000001"
"""All uppers have the same: nothing mounts them by UUID, and two are never in one machine."""
_CONFIG = """\
[defaults]
base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
enable_periodic_fsck = 0
blocksize = 4096
inode_size = 256
inode_ratio = 16384
[fs_types]
small = {
}
ext4 = {
features = has_journal,extent,huge_file,flex_bg,metadata_csum,metadata_csum_seed,64bit,dir_nlink,extra_isize
}
"""
"""Our own mke2fs.conf, so that no machine's own has a say."""


def mke2fs_arguments(target: Path, size: int) -> list[str]:
    """Return the arguments of mke2fs for a file system of `size` bytes in `target`."""
    extended = ",".join([
        f"hash_seed={_UUID}", f"resize={ROOM // _BLOCK}", "root_owner=0:0",
        "lazy_itable_init=1", "lazy_journal_init=1", "assume_storage_prezeroed=1", "nodiscard",
    ])  # fmt: skip
    return [
        "-q", "-F", "-t", "ext4", "-b", str(_BLOCK), "-L", LABEL, "-U", _UUID, "-m", "0",
        "-J", f"size={_JOURNAL_MB}", "-E", extended, str(target), f"{size // _BLOCK}",
    ]  # fmt: skip


def make_uppers(folder: Path, program: bytes, libraries: Mapping[str, bytes], loader: str) -> dict[int, Path]:
    """Make them all in the new folder `folder`; return sparse files by their sizes in bytes.

    `program` is mke2fs; it runs through `loader`, one of `libraries`, so that the host's own libraries do not matter.
    Raises `ToolError` when it fails.
    """
    folder.mkdir()
    for name, data in {**libraries, "mke2fs": program, "mke2fs.conf": _CONFIG.encode()}.items():
        (folder / name).write_bytes(data)
    (folder / loader).chmod(0o755)
    start: list[Argument] = [folder / loader, "--inhibit-cache", "--library-path", folder, folder / "mke2fs"]
    env = {"MKE2FS_CONFIG": str(folder / "mke2fs.conf"), "E2FSPROGS_FAKE_TIME": "1", "E2FSPROGS_LIBMAGIC_SUPPRESS": "1"}
    made = {}
    for size in (SMALL, *READY):
        made[size] = folder / f"{size}.ext4"
        with made[size].open("wb") as file:
            file.truncate(size)
        run([*start, *mke2fs_arguments(made[size], size)], env=env)
    return made


_HEADER = struct.Struct("<8sIII")
_MAGIC = b"shedup01"


def pack_upper(path: Path) -> bytes:
    """Return what holds the sparse file `path`, a whole number of blocks long."""
    with path.open("rb") as file:
        blocks = os.fstat(file.fileno()).st_size // _BLOCK
        found = list(_not_zero(file.fileno()))
    body = struct.pack(f"<{len(found)}I", *(number for number, _ in found)) + b"".join(block for _, block in found)
    return _HEADER.pack(_MAGIC, blocks, len(found), zlib.crc32(body)) + body


def unpack_upper(data: bytes, size: int, file: BinaryIO) -> None:
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
