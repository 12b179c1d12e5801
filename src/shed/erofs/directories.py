"""Directories, read and written: blocks of entries.

A block holds an array of 12-byte records, then the names without anything between them.  The first record's name offset
says where the names begin, and so how many records there are.  A name ends where the next one begins.  Names are sorted
as bytes through the whole directory, `.` and `..` among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from shed.erofs import layout
from shed.erofs.errors import ErofsError

_RECORD = layout.DIRENT.size
_MAX_TYPE = layout.FT_SYMLINK


class Dirent(NamedTuple):
    """One name in a directory."""

    name: bytes
    nid: int
    file_type: int
    """One of `layout.FT_*`."""


def parse_directory(blocks: Iterable[bytes], nid: int) -> Iterator[Dirent]:
    """Yield the entries of a directory, `.` and `..` too, from its blocks.

    Raises `ErofsError` for the first entry that breaks a rule.
    """
    previous = b""
    for block in blocks:
        for entry in _parse_block(block, nid):
            if entry.name <= previous:
                raise ErofsError(f"directory entry {entry.name!r} follows {previous!r}", rule="dirent-order", nid=nid)
            previous = entry.name
            yield entry


def _parse_block(block: bytes, nid: int) -> list[Dirent]:
    names = int.from_bytes(block[8:10], "little") if len(block) >= _RECORD else 0
    if names < _RECORD or names % _RECORD or names >= len(block):
        raise ErofsError("directory block has no valid entries", rule="dirent-offset", nid=nid)
    records = list(layout.DIRENT.iter_unpack(block[:names]))
    bounds = [record[1] for record in records]
    last = block.find(b"\0", bounds[-1])
    bounds.append(last if last >= 0 else len(block))
    entries = []
    for (target, start, file_type, _), end in zip(records, bounds[1:], strict=True):
        if not names <= start < end <= len(block):
            raise ErofsError("directory entry has no name, or one outside its block", rule="dirent-offset", nid=nid)
        name = block[start:end]
        if end - start > layout.NAME_MAX or b"/" in name or b"\0" in name:
            raise ErofsError(f"bad name {name!r} in directory", rule="dirent-name", nid=nid)
        if not 0 < file_type <= _MAX_TYPE:
            raise ErofsError(f"directory entry {name!r} has unknown type {file_type}", rule="dirent-type", nid=nid)
        entries.append(Dirent(name, target, file_type))
    return entries


# Writing.


def directory_size(names: Iterable[bytes]) -> int:
    """Return the size in bytes of a directory with these sorted names, which include `.` and `..`."""
    size = used = 0
    for name in names:
        need = layout.DIRENT.size + len(name)
        if used + need > layout.BLOCK_SIZE:
            size += layout.BLOCK_SIZE
            used = 0
        used += need
    return size + used


def pack_directory(entries: Iterable[Dirent]) -> Iterator[bytes]:
    """Yield the blocks of a directory from its sorted entries; all but the last are padded to the block size."""
    block: list[Dirent] = []
    used = 0
    for entry in entries:
        need = layout.DIRENT.size + len(entry.name)
        if used + need > layout.BLOCK_SIZE:
            yield _pack_block(block).ljust(layout.BLOCK_SIZE, b"\0")
            block, used = [], 0
        block.append(entry)
        used += need
    if block:
        yield _pack_block(block)


def _pack_block(entries: list[Dirent]) -> bytes:
    offset = layout.DIRENT.size * len(entries)
    parts = []
    for name, nid, file_type in entries:
        parts.append(layout.DIRENT.pack(nid, offset, file_type, 0))
        offset += len(name)
    parts += [name for name, _, _ in entries]
    return b"".join(parts)
