"""Directories, as blocks of entries: first the fixed-size parts, then the names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from shed.erofs import layout


class Dirent(NamedTuple):
    """A name in a folder, and what it leads to."""

    name: bytes
    nid: int
    file_type: int


def directory_size(names: Iterable[bytes]) -> int:
    """Return the bytes a folder with these sorted names takes, "." and ".." included."""
    size = used = 0
    for name in names:
        need = layout.DIRENT.size + len(name)
        if used + need > layout.BLOCK_SIZE:
            size += layout.BLOCK_SIZE
            used = 0
        used += need
    return size + used


def pack_directory(entries: Iterable[Dirent]) -> Iterator[bytes]:
    """Yield the blocks of a folder from its sorted entries; all but the last are padded to the block size."""
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
    # A reader learns the number of entries from the first name's offset, and a name's length from where the next one
    # begins.
    offset = layout.DIRENT.size * len(entries)
    parts = []
    for name, nid, file_type in entries:
        parts.append(layout.DIRENT.pack(nid, offset, file_type, 0))
        offset += len(name)
    parts += [name for name, _, _ in entries]
    return b"".join(parts)
