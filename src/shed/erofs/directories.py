"""Blocks of directory entries.

A block holds an array of 12-byte records, then the names, back to back; the first record's name offset says where names
begin, and so how many records there are.  Names are sorted bytewise through the whole directory, `.` and `..` among
them.
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

    Raises `ErofsError` at the first that breaks a rule.
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
