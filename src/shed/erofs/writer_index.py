"""How a regular file's bytes are described behind its inode: extents, logical cluster indexes, chunk maps.  Pure."""

from __future__ import annotations

import enum
import functools
import struct
from collections.abc import Sequence
from typing import NamedTuple

from shed.erofs import layout
from shed.erofs.layout import BLOCK_BITS, BLOCK_SIZE


class Kind(enum.IntEnum):
    """How an extent is stored."""

    PLAIN = enum.auto()
    """As it is, in blocks."""
    COMPRESSED = enum.auto()
    """As one physical cluster."""
    ZERO = enum.auto()
    """Nothing but zeros, not stored yet."""
    INLINE_PLAIN = enum.auto()
    """As it is, behind the inode."""
    INLINE_COMPRESSED = enum.auto()
    """As one compressed piece, behind the inode."""


class Extent(NamedTuple):
    """A run of a file's bytes.  Each begins at a multiple of the block size.

    Only a file's last one may end elsewhere.
    """

    kind: Kind
    length: int
    """Bytes of the file."""
    block: int = 0
    """Where it is stored."""
    blocks: int = 0
    """Blocks it takes there."""


class FileData(NamedTuple):
    """Where a regular file's bytes are, in terms of its inode."""

    layout: int = layout.LAYOUT_FLAT_PLAIN
    union: int = 0
    """i_u of the inode."""
    extents: Sequence[Extent] = ()
    """For COMPRESSED_FULL and CHUNK_BASED."""
    chunk_bits: int = 0
    """For CHUNK_BASED: the binary logarithm of the chunk size."""
    tail_at: int = 0
    """Where in the spool of tails the inline bytes are."""
    tail_size: int = 0


def index_size(data: FileData, size: int, end: int) -> int:
    """Return the bytes between `end`, where the xattrs of an inode of `size` bytes end, and its inline tail."""
    if data.layout == layout.LAYOUT_COMPRESSED_FULL:
        return layout.full_index_start(end) - end + layout.LCLUSTER_INDEX.size * -(-size // BLOCK_SIZE)
    if data.layout == layout.LAYOUT_CHUNK_BASED:
        return layout.round_up(end, 4) - end + 4 * -(-size >> data.chunk_bits)
    return 0


def pack_index(data: FileData, end: int, algorithm: int) -> bytes:
    """Return the bytes that `index_size` counts; `end` is taken from a place that is a multiple of 8."""
    if data.layout == layout.LAYOUT_COMPRESSED_FULL:
        advise = layout.ADVISE_BIG_PCLUSTER_1
        if data.tail_size:
            advise |= layout.ADVISE_INLINE_PCLUSTER
        header = layout.MAP_HEADER.pack(data.tail_size << 16, advise, algorithm, 0)
        padding = bytes(layout.map_header_start(end) - end)
        return b"".join([padding, header, bytes(8), *map(_lclusters, data.extents)])
    if data.layout == layout.LAYOUT_CHUNK_BASED:
        return bytes(layout.round_up(end, 4) - end) + _chunk_map(data.extents, 1 << data.chunk_bits)
    return b""


def _lclusters(extent: Extent) -> bytes:
    """Return the full indexes of one extent: an 8-byte number each, of which the upper half is the union."""
    count, rest = divmod(extent.length, BLOCK_SIZE)
    if extent.kind is Kind.PLAIN:
        total = count + (rest > 0)
        return struct.pack(
            f"<{total}Q", *((extent.block + number) << 32 | layout.LCLUSTER_PLAIN for number in range(total))
        )
    if extent.kind is Kind.INLINE_PLAIN:
        return layout.LCLUSTER_INDEX.pack(layout.LCLUSTER_PLAIN, 0, 0)
    head = layout.LCLUSTER_INDEX.pack(layout.LCLUSTER_HEAD1, 0, extent.block)
    if not count:  # an inline piece shorter than a block: it ends with the file
        return head
    # Where the last logical cluster is partial, a head that holds nothing tells where the extent ends within it.
    end = layout.LCLUSTER_INDEX.pack(layout.LCLUSTER_PLAIN, rest, 0) if rest else b""
    return head + _nonheads(count, extent.blocks or 1) + end


@functools.lru_cache(maxsize=4096)
def _nonheads(count: int, blocks: int) -> bytes:
    """Return the indexes that follow a head `count` logical clusters before the next head, its data being encoded in `blocks`."""
    numbers = []
    for back in range(1, count):
        delta = layout.LI_D0_CBLKCNT | blocks if back == 1 else back
        numbers.append(layout.LCLUSTER_NONHEAD | delta << 32 | (count - back) << 48)
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def _chunk_map(extents: Sequence[Extent], chunk: int) -> bytes:
    addresses: list[int] = []
    for extent in extents:
        count = -(-extent.length // chunk)
        if extent.kind is Kind.ZERO:
            addresses += [layout.NULL_ADDRESS] * count
        else:
            addresses += range(extent.block, extent.block + extent.blocks, chunk >> BLOCK_BITS)
    return struct.pack(f"<{len(addresses)}I", *addresses)
