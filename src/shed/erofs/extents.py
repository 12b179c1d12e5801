"""Extents: where the bytes of an inode are stored, in the same terms for every data layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from shed.erofs import layout
from shed.erofs.clusters import NONHEAD, ClusterMap, Index, check_algorithm, indexes, read_map
from shed.erofs.errors import ErofsError
from shed.erofs.image_file import ImageFile
from shed.erofs.inode import Inode
from shed.erofs.superblock import Description


class Form(IntEnum):
    """How the bytes of an extent are stored."""

    HOLE = 0
    """Not stored: they are zeros."""
    VERBATIM = 1
    """Uncompressed; such an extent may have any length."""
    INTERLACED = 2
    """Uncompressed, with the last `4096 - start % 4096` bytes of the data first."""
    ENCODED = 3
    """Compressed: at most `layout.PCLUSTER_MAX_SIZE` bytes, which decode to at most `layout.PCLUSTER_MAX_DSIZE`."""
    FRAGMENT = 4
    """In the packed inode; `position` is the byte of that inode's data."""


class Extent(NamedTuple):
    """A piece of a file and where it is stored."""

    start: int
    """Byte of the file."""
    length: int
    form: Form
    position: int = 0
    """Byte of the image."""
    stored: int = 0
    """Bytes in the image."""
    algorithm: int = 0
    partial: bool = False
    """Whether the extent is only the first part of what is stored."""


def extents(
    file: ImageFile, description: Description, inode: Inode, offset: int = 0, *, table: ClusterMap | None = None
) -> Iterator[Extent]:
    """Yield the extents of `inode` in order, without gaps, from the one with byte `offset` to the end of the file.

    `table` is the cluster map of a compressed inode, if the caller has it.  Raises `ErofsError` when an extent breaks a
    rule.  Every extent that is yielded lies inside the image.
    """
    if offset >= inode.size:
        return iter(())
    if inode.layout == layout.LAYOUT_CHUNK_BASED:
        return _chunks(file, description, inode, offset)
    if inode.compressed:
        return _compressed(file, description, inode, table or read_map(file, description, inode), offset)
    return _flat(inode)


def _flat(inode: Inode) -> Iterator[Extent]:
    tail = inode.tail
    if inode.size > tail:
        yield Extent(0, inode.size - tail, Form.VERBATIM, inode.union * layout.BLOCK_SIZE, inode.size - tail)
    if tail:
        yield Extent(inode.size - tail, tail, Form.VERBATIM, inode.body, tail)


def _chunks(file: ImageFile, description: Description, inode: Inode, offset: int) -> Iterator[Extent]:
    """Yield the chunks from `offset` on.  All but the last have the same size."""
    start, unit, bits = chunk_table(file, description, inode)
    for number in range(offset >> bits, -(-inode.size >> bits)):
        field = file.map[start + number * unit : start + (number + 1) * unit]
        high, device, block = layout.CHUNK_INDEX.unpack(field) if unit == 8 else (0, 0, int.from_bytes(field, "little"))
        if device or (high and block != layout.NULL_ADDRESS):
            raise ErofsError(
                f"chunk {number} is on another device or past 16 TiB", rule="unsupported-feature", nid=inode.nid
            )
        length = min(1 << bits, inode.size - (number << bits))
        if block == layout.NULL_ADDRESS:
            yield Extent(number << bits, length, Form.HOLE)
            continue
        position = block * layout.BLOCK_SIZE
        if position + length > description.limit:
            raise ErofsError(
                f"chunk {number} at block {block} is outside the image", rule="data-outside", nid=inode.nid
            )
        yield Extent(number << bits, length, Form.VERBATIM, position, length)


def chunk_table(file: ImageFile, description: Description, inode: Inode) -> tuple[int, int, int]:
    """Return where the table of a chunk-based inode begins, the bytes of each entry, and the bits of the chunk size.

    Raises `ErofsError` when the table is malformed or outside the image.
    """
    if not description.declares(layout.INCOMPAT_CHUNKED_FILE):
        raise ErofsError(
            "file of chunks, which the superblock does not declare", rule="chunked-file-undeclared", nid=inode.nid
        )
    known = layout.CHUNK_FORMAT_BLKBITS_MASK | layout.CHUNK_FORMAT_INDEXES
    if inode.union & ~known:
        raise ErofsError(f"unknown chunk format {inode.union:#x}", rule="chunk-format", nid=inode.nid)
    unit = 8 if inode.union & layout.CHUNK_FORMAT_INDEXES else 4
    bits = layout.BLOCK_BITS + (inode.union & layout.CHUNK_FORMAT_BLKBITS_MASK)
    start = layout.round_up(inode.body, unit)
    file.check(start, unit * -(-inode.size >> bits), rule="index-outside", nid=inode.nid)
    return start, unit, bits


def _compressed(
    file: ImageFile, description: Description, inode: Inode, table: ClusterMap, offset: int
) -> Iterator[Extent]:
    if not table.clusters:
        yield Extent(0, inode.size, Form.FRAGMENT, table.fragment or 0)
        return
    first = _head_before(file, inode, table, offset) if offset else 0
    run: _Head | None = None
    for number, index in enumerate(indexes(file, inode, table, first), first):
        if index.type == NONHEAD:
            if run is None:
                raise ErofsError(f"cluster {number} has no head", rule="index-head", nid=inode.nid)
            if index.block or index.value != number - run.number:
                _follow(run, number, index, inode.nid)
            continue
        start = (number << table.bits) + index.value
        if index.value >> table.bits or start > inode.size or (number == 0 and start):
            raise ErofsError(
                f"extent begins {index.value} bytes into cluster {number}", rule="index-offset", nid=inode.nid
            )
        if run is not None:
            run.clusters = number - run.number
            yield _extent(description, inode, table, run, start, last=start == inode.size)
        run = _Head(index, number, start)
        if start == inode.size:  # a head of nothing, which tells where the extent before it ends
            return
    if run is not None:
        run.clusters = table.clusters - run.number
        yield _extent(description, inode, table, run, inode.size, last=True)


@dataclass(slots=True)
class _Head:
    """A head and what the non-heads behind it say, as far as they are read."""

    head: Index
    number: int
    """The number of its logical cluster."""
    start: int
    """Byte of the file where its extent begins."""
    blocks: int = 0
    """Size of its data, once an index gives it."""
    clusters: int = 0
    """Number of its indexes, once all are read."""


def _follow(run: _Head, number: int, index: Index, nid: int) -> None:
    """Handle a non-head that gives a size, or a distance that is not the plain one."""
    distance = number - run.number
    if index.block:
        if distance != 1:
            raise ErofsError(
                f"cluster {number} tells a size, but is not the first behind its head", rule="index-size", nid=nid
            )
        run.blocks = index.block
    elif not (
        0 < index.value < distance and distance >= layout.LI_D0_CBLKCNT
    ):  # a distance that does not fit is given in steps
        raise ErofsError(
            f"cluster {number} is {distance} behind its head, but says {index.value}", rule="index-distance", nid=nid
        )


def _head_before(file: ImageFile, inode: Inode, table: ClusterMap, offset: int) -> int:
    """Return the number of the logical cluster where the extent that holds byte `offset` begins."""
    number = offset >> table.bits
    index = next(indexes(file, inode, table, number))
    if index.type != NONHEAD and number and (number << table.bits) + index.value > offset:
        number -= 1
        index = next(indexes(file, inode, table, number))
    while index.type == NONHEAD:
        if not 0 < index.value <= number:
            raise ErofsError(f"cluster {number} has no head", rule="index-head", nid=inode.nid)
        number -= index.value
        index = next(indexes(file, inode, table, number))
    return number


def _extent(description: Description, inode: Inode, table: ClusterMap, run: _Head, end: int, *, last: bool) -> Extent:
    """Return the extent of `run`, which ends at byte `end` of the file."""
    head, start, length = run.head, run.start, end - run.start
    nid = inode.nid
    if head.type == layout.LCLUSTER_HEAD2:
        if not description.declares(layout.INCOMPAT_COMPR_HEAD2):
            raise ErofsError(
                "a second algorithm, which the superblock does not declare", rule="compr-head2-undeclared", nid=nid
            )
        check_algorithm(description, table.algorithms[1], nid)
    big = table.advise & (
        layout.ADVISE_BIG_PCLUSTER_1 if head.type == layout.LCLUSTER_HEAD1 else layout.ADVISE_BIG_PCLUSTER_2
    )
    if last and table.fragment is not None:
        high = head.block << 32 if inode.layout == layout.LAYOUT_COMPRESSED_FULL else 0
        return Extent(start, length, Form.FRAGMENT, table.fragment | high)
    inline = last and table.inline_size > 0
    if inline:
        position, stored = table.end, table.inline_size
    else:
        if run.blocks and not table.advise & (layout.ADVISE_BIG_PCLUSTER_1 | layout.ADVISE_BIG_PCLUSTER_2):
            raise ErofsError(f"extent at {start} tells a size, but is of one block", rule="index-size", nid=nid)
        if big and run.clusters > 1 and not run.blocks and head.type != layout.LCLUSTER_PLAIN:
            raise ErofsError(f"extent at {start} does not tell its size", rule="index-size", nid=nid)
        position, stored = head.block * layout.BLOCK_SIZE, (run.blocks or 1 if big else 1) * layout.BLOCK_SIZE
        if position + stored > description.limit:
            raise ErofsError(
                f"extent at {start}: block {head.block} is outside the image", rule="data-outside", nid=nid
            )
    if head.type == layout.LCLUSTER_PLAIN:
        if length > stored:
            raise ErofsError(f"extent at {start}: {length} bytes are stored as {stored}", rule="index-size", nid=nid)
        interlaced = table.advise & layout.ADVISE_INTERLACED_PCLUSTER and not inline
        return Extent(start, length, Form.INTERLACED if interlaced else Form.VERBATIM, position, stored)
    algorithm = table.algorithms[head.type == layout.LCLUSTER_HEAD2]
    if stored > layout.PCLUSTER_MAX_SIZE or length > layout.PCLUSTER_MAX_DSIZE:
        raise ErofsError(
            f"extent at {start}: {length} bytes in {stored} are more than a kernel takes", rule="pcluster-size", nid=nid
        )
    if algorithm == layout.ALGORITHM_LZ4 and stored > description.lz4_limit:
        raise ErofsError(
            f"extent at {start}: {stored} bytes encoded, more than the superblock declares",
            rule="pcluster-undeclared",
            nid=nid,
        )
    return Extent(start, length, Form.ENCODED, position, stored, algorithm, head.partial)
