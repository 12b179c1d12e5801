"""Cluster indexes: how an inode with compressed data says where that data is.

A compressed file is divided into logical clusters of 4096 bytes, and each has one index.  There are two kinds:

- A *head* says that an encoded extent begins in its logical cluster: at which byte, and in which block its data is.
- A *non-head* says how many clusters back the head is.  The first one behind a head may instead say how many blocks the
  data of the extent takes.

Full indexes have 8 bytes each.  Compact ones come in packs of 2 or 16 that share one block address (see Linux
``fs/erofs/zmap.c``).  The reader takes both forms, the writer makes full ones.
"""

from __future__ import annotations

import enum
import functools
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from shed.erofs import layout
from shed.erofs.errors import ErofsError
from shed.erofs.image_file import ImageFile
from shed.erofs.inode import Inode
from shed.erofs.superblock import Description

NONHEAD = layout.LCLUSTER_NONHEAD
_CBLKCNT = layout.LI_D0_CBLKCNT
_AT_ONCE = 4096
"""Indexes read at once."""


class ClusterMap(NamedTuple):
    """The map header of a compressed inode, and where its indexes are."""

    advise: int
    algorithms: tuple[int, int]
    """The algorithms of extents of type HEAD1 and of type HEAD2."""
    bits: int
    """A logical cluster has 2 ** bits bytes."""
    clusters: int
    """How many logical clusters the inode has."""
    first: int
    """Byte of the image where the indexes begin."""
    narrow_from: int
    """Compact indexes: this one and the next `narrow` take 2 bytes each on average, the others 4."""
    narrow: int
    end: int
    """Byte of the image where the indexes end, and inline data begins."""
    inline_size: int
    """Encoded bytes of the last extent when it is stored behind the indexes; else 0."""
    fragment: int | None
    """Byte of the packed inode where the last extent begins (the whole file, when there are no indexes).

    None when the last extent is not in the packed inode.
    """


class Index(NamedTuple):
    """One index, whether it was full or compact."""

    type: int
    value: int
    """Of a head: the byte of the logical cluster where the extent begins.  Of a non-head: the distance back to the
    head, in clusters.
    """
    block: int
    """Of a head: the block where its data begins.  Of a non-head: the blocks of its extent, 0 when not given."""
    partial: bool = False
    """Whether the extent is only a part of what its data decodes to."""


def read_map(file: ImageFile, description: Description, inode: Inode) -> ClusterMap:
    """Return the cluster map of a compressed inode that is not empty.

    Raises `ErofsError` when it uses features that the superblock does not declare, or when its indexes are outside the
    image.
    """
    nid = inode.nid
    start = layout.map_header_start(inode.body)
    fragment, advise, algorithms, cluster = file.unpack(layout.MAP_HEADER, start, rule="index-outside", nid=nid)
    compact = inode.layout == layout.LAYOUT_COMPRESSED_COMPACT
    if cluster & layout.FRAGMENT_INODE_BIT:
        _require(description, layout.INCOMPAT_FRAGMENTS, "fragments", "whole file in the packed inode", nid)
        whole = int.from_bytes(file.map[start : start + 8], "little") & ~(1 << 63)
        return ClusterMap(0, (0, 0), layout.BLOCK_BITS, 0, start, 0, 0, start + 8, 0, whole)
    _check_header(description, inode, advise, algorithms, cluster)
    bits = layout.BLOCK_BITS + (cluster & 7)
    count = -(-inode.size >> bits)
    first, narrow_from, narrow = layout.full_index_start(inode.body), 0, 0
    end = first + layout.LCLUSTER_INDEX.size * count
    if compact:
        first = layout.compact_index_start(inode.body)
        if advise & layout.ADVISE_COMPACTED_2B:
            narrow_from = -first % layout.COMPACT_2B_PACK // 4
            narrow = max(count - narrow_from, 0) // layout.COMPACT_2B_ITEMS * layout.COMPACT_2B_ITEMS
        wide = count - narrow
        end = first + narrow * 2 + layout.round_up(wide * 4, layout.COMPACT_4B_PACK)
    file.check(first, end - first, rule="index-outside", nid=nid)
    inline = advise & layout.ADVISE_INLINE_PCLUSTER and fragment >> 16
    if inline and end % layout.BLOCK_SIZE + inline > layout.BLOCK_SIZE:
        raise ErofsError(f"inline cluster of {inline} bytes crosses a block", rule="inline-crosses-block", nid=nid)
    file.check(end, inline, rule="data-outside", nid=nid)
    if advise & layout.ADVISE_INLINE_PCLUSTER and not inline:
        raise ErofsError("inline cluster without bytes", rule="map-header", nid=nid)
    return ClusterMap(advise, (algorithms & 15, algorithms >> 4), bits, count, first, narrow_from, narrow, end, inline,
                      fragment if advise & layout.ADVISE_FRAGMENT_PCLUSTER else None)  # fmt: skip


def _check_header(description: Description, inode: Inode, advise: int, algorithms: int, cluster: int) -> None:
    nid = inode.nid
    compact = inode.layout == layout.LAYOUT_COMPRESSED_COMPACT
    if advise & ~layout.ADVISE_ALL or cluster & 0x78:
        raise ErofsError(f"unknown flags in the map header: {advise:#x}, {cluster:#x}", rule="map-header", nid=nid)
    big = advise & (layout.ADVISE_BIG_PCLUSTER_1 | layout.ADVISE_BIG_PCLUSTER_2)
    if big:
        _require(
            description, layout.INCOMPAT_BIG_PCLUSTER, "big-pcluster", "map header says big physical clusters", nid
        )
    if compact and big and big != layout.ADVISE_BIG_PCLUSTER_1 | layout.ADVISE_BIG_PCLUSTER_2:
        raise ErofsError(
            "compact indexes with big physical clusters for one kind of head alone", rule="map-header", nid=nid
        )
    if advise & layout.ADVISE_INLINE_PCLUSTER:
        _require(description, layout.INCOMPAT_ZTAILPACKING, "ztailpacking", "last cluster is inline", nid)
    if advise & layout.ADVISE_FRAGMENT_PCLUSTER:
        _require(description, layout.INCOMPAT_FRAGMENTS, "fragments", "tail is in the packed inode", nid)
    if not compact and advise & layout.ADVISE_EXTENTS:
        raise ErofsError("encoded extents are not supported", rule="unsupported-feature", nid=nid)
    if compact and cluster & 7 > (0 if advise & layout.ADVISE_COMPACTED_2B else 2):
        raise ErofsError("logical clusters are too large for compact indexes", rule="map-header", nid=nid)
    check_algorithm(description, algorithms & 15, nid)


def check_algorithm(description: Description, algorithm: int, nid: int) -> None:
    """Raise `ErofsError` unless the superblock declares `algorithm`."""
    if algorithm >= len(layout.ALGORITHM_NAMES):
        raise ErofsError(f"unknown compression algorithm {algorithm}", rule="unknown-algorithm", nid=nid)
    if algorithm not in description.algorithms:
        raise ErofsError(f"compressed with {layout.ALGORITHM_NAMES[algorithm]}, which the superblock does not declare",
                         rule="algorithm-undeclared", nid=nid)  # fmt: skip


def _require(description: Description, feature: int, name: str, what: str, nid: int) -> None:
    if not description.declares(feature):
        raise ErofsError(f"{what}, which the superblock does not declare", rule=f"{name}-undeclared", nid=nid,
                         hint="a kernel mounts this image and then fails to read it: make it again with a newer "
                              "writer")  # fmt: skip


_FOLLOWERS = tuple(Index(NONHEAD, distance, 0) for distance in range(_CBLKCNT))
"""Most indexes are these, so they are made once."""


def indexes(file: ImageFile, inode: Inode, table: ClusterMap, start: int) -> Iterator[Index]:
    """Yield the indexes of `inode` from number `start` to the last."""
    if inode.layout == layout.LAYOUT_COMPRESSED_FULL:
        return _full(file, table, start)
    return _compact(file, table, start)


def _full(file: ImageFile, table: ClusterMap, start: int) -> Iterator[Index]:
    size = layout.LCLUSTER_INDEX.size
    for run in range(start, table.clusters, _AT_ONCE):
        piece = file.map[table.first + run * size : table.first + min(run + _AT_ONCE, table.clusters) * size]
        for advise, offset, union in layout.LCLUSTER_INDEX.iter_unpack(piece):
            kind = advise & layout.LCLUSTER_TYPE_MASK
            if kind != NONHEAD:
                yield Index(kind, offset, union, bool(advise & layout.LI_PARTIAL_REF))
            elif union & _CBLKCNT:
                yield Index(kind, 1, union & 0xFFFF & ~_CBLKCNT)
            else:
                distance = union & 0xFFFF
                yield _FOLLOWERS[distance] if distance < _CBLKCNT else Index(kind, distance, 0)


def _compact(file: ImageFile, table: ClusterMap, start: int) -> Iterator[Index]:
    number = start
    narrow_end = table.narrow_from + table.narrow
    while number < table.clusters:
        if table.narrow_from <= number < narrow_end:
            items, size, width = layout.COMPACT_2B_ITEMS, layout.COMPACT_2B_PACK, 14
            skip = (number - table.narrow_from) % items
            position = table.first + table.narrow_from * 4 + (number - table.narrow_from - skip) * 2
        else:
            items, size, width = layout.COMPACT_4B_ITEMS, layout.COMPACT_4B_PACK, 16
            before = 0 if number < table.narrow_from or not table.narrow else narrow_end
            base = table.first if not before else table.first + table.narrow_from * 4 + table.narrow * 2
            skip = (number - before) % items
            position = base + (number - before - skip) * 4
        pack = _unpack(file.map[position : position + size], items, width, table)
        for index in pack[skip : table.clusters - number + skip]:
            yield index
            number += 1


def _unpack(pack: bytes, items: int, width: int, table: ClusterMap) -> list[Index]:
    """Return the indexes of one pack.

    The block of a head is the pack's own address plus the sizes of all extents that come before that head in the pack.
    The last non-head of a pack gives the distance to the next head, which we do not need; its distance back follows
    from the index before it.
    """
    stream = int.from_bytes(pack[:-4], "little")
    block = int.from_bytes(pack[-4:], "little")
    big = table.advise & layout.ADVISE_BIG_PCLUSTER_1
    bits = max(table.bits, layout.BLOCK_BITS)
    mask = (1 << bits) - 1
    if not big:
        block += 1
    found: list[Index] = []
    distance = 0
    for number in range(items):
        item = stream >> number * width
        kind, value = item >> bits & 3, item & mask
        if kind != NONHEAD:
            found.append(Index(kind, value, block & 0xFFFFFFFF))
            following = stream >> (number + 1) * width >> bits & 3
            if not big or (number + 1 < items and following != NONHEAD):
                block += 1
            distance = 0
        elif value & _CBLKCNT:
            found.append(Index(kind, 1, value & ~_CBLKCNT))
            block += value & ~_CBLKCNT
            distance = 1
        else:
            distance = distance + 1 if number + 1 == items else value
            found.append(Index(kind, distance, 0))
    return found


# Writing.


class Storage(enum.IntEnum):
    """How a run is stored."""

    PLAIN = enum.auto()
    """Uncompressed, in blocks."""
    COMPRESSED = enum.auto()
    """As one physical cluster."""
    ZERO = enum.auto()
    """Only zeros, not stored yet."""
    INLINE_PLAIN = enum.auto()
    """Uncompressed, behind the inode."""
    INLINE_COMPRESSED = enum.auto()
    """As one compressed piece, behind the inode."""


class Run(NamedTuple):
    """Bytes of a file that are written in one way: an extent, or several that follow each other.

    Each begins at a multiple of the block size, and ends at one unless it is the last of its file.
    """

    kind: Storage
    length: int
    """Bytes of the file."""
    block: int = 0
    """Where it is stored."""
    blocks: int = 0
    """Blocks it takes there."""


class FileData(NamedTuple):
    """The fields of a regular file's inode that say where its data is."""

    layout: int = layout.LAYOUT_FLAT_PLAIN
    union: int = 0
    """i_u of the inode."""
    runs: Sequence[Run] = ()
    """For COMPRESSED_FULL and CHUNK_BASED."""
    chunk_bits: int = 0
    """For CHUNK_BASED: the binary logarithm of the chunk size."""
    tail_at: int = 0
    """Byte of the temporary file of tails where the inline tail is."""
    tail_size: int = 0


def index_size(data: FileData, size: int, end: int) -> int:
    """Return the number of bytes between the xattrs of an inode, which end at `end`, and its inline tail.

    `size` is the size of the file.
    """
    if data.layout == layout.LAYOUT_COMPRESSED_FULL:
        return layout.full_index_start(end) - end + layout.LCLUSTER_INDEX.size * -(-size // layout.BLOCK_SIZE)
    if data.layout == layout.LAYOUT_CHUNK_BASED:
        return layout.round_up(end, 4) - end + 4 * -(-size >> data.chunk_bits)
    return 0


def pack_index(data: FileData, end: int, algorithm: int) -> bytes:
    """Return the bytes that `index_size` counts.  `end` may be relative to any place that is a multiple of 8."""
    if data.layout == layout.LAYOUT_COMPRESSED_FULL:
        advise = layout.ADVISE_BIG_PCLUSTER_1
        if data.tail_size:
            advise |= layout.ADVISE_INLINE_PCLUSTER
        header = layout.MAP_HEADER.pack(data.tail_size << 16, advise, algorithm, 0)
        padding = bytes(layout.map_header_start(end) - end)
        return b"".join([padding, header, bytes(8), *map(_lclusters, data.runs)])
    if data.layout == layout.LAYOUT_CHUNK_BASED:
        return bytes(layout.round_up(end, 4) - end) + _chunk_map(data.runs, 1 << data.chunk_bits)
    return b""


def _lclusters(run: Run) -> bytes:
    """Return the full indexes of one run: each is an 8-byte number, whose upper half is the union."""
    count, rest = divmod(run.length, layout.BLOCK_SIZE)
    if run.kind is Storage.PLAIN:
        total = count + (rest > 0)
        return struct.pack(
            f"<{total}Q", *((run.block + number) << 32 | layout.LCLUSTER_PLAIN for number in range(total))
        )
    if run.kind is Storage.INLINE_PLAIN:
        return layout.LCLUSTER_INDEX.pack(layout.LCLUSTER_PLAIN, 0, 0)
    head = layout.LCLUSTER_INDEX.pack(layout.LCLUSTER_HEAD1, 0, run.block)
    if not count:  # an inline piece shorter than a block: it ends with the file
        return head
    # Where the last logical cluster is partial, a head that holds nothing tells where the extent ends within it.
    end = layout.LCLUSTER_INDEX.pack(layout.LCLUSTER_PLAIN, rest, 0) if rest else b""
    return head + _nonheads(count, run.blocks or 1) + end


@functools.lru_cache(maxsize=4096)
def _nonheads(count: int, blocks: int) -> bytes:
    """Return the indexes between a head and the next, which is `count` logical clusters behind it.

    The data of the head takes `blocks` blocks.
    """
    numbers = []
    for back in range(1, count):
        delta = layout.LI_D0_CBLKCNT | blocks if back == 1 else back
        numbers.append(layout.LCLUSTER_NONHEAD | delta << 32 | (count - back) << 48)
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def _chunk_map(runs: Sequence[Run], chunk: int) -> bytes:
    addresses: list[int] = []
    for run in runs:
        count = -(-run.length // chunk)
        if run.kind is Storage.ZERO:
            addresses += [layout.NULL_ADDRESS] * count
        else:
            addresses += range(run.block, run.block + run.blocks, chunk >> layout.BLOCK_BITS)
    return struct.pack(f"<{len(addresses)}I", *addresses)
