"""Writing an EROFS image.

The same tree and the same options give the same bytes, on every machine and with any number of threads.

::

    block 0      superblock, compression settings
    block 1 ...  data of regular files, in the order of the tree
    ...          blocks of directories and symlinks that are not inline
    meta_blkaddr inodes, each with its xattrs, indexes and inline tail

The superblock is written last, so an unfinished image has none.
"""

from __future__ import annotations

import hashlib
import os
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from shed.entries import Entry
from shed.erofs import layout
from shed.erofs.clusters import index_size, pack_index
from shed.erofs.compression import MAX_CLUSTER_SIZE, Compression
from shed.erofs.directories import Dirent, directory_size, pack_directory
from shed.erofs.errors import ErofsError
from shed.erofs.inode import InodeRecord, encode_device
from shed.erofs.layout import BLOCK_SIZE, NID_SIZE
from shed.erofs.superblock import Superblock, superblock_checksum
from shed.erofs.tree import Node, build_tree, split_device
from shed.erofs.writer_data import DataWriter
from shed.erofs.xattrs import xattr_icount
from shed.errors import UsageError
from shed.version import VERSION

__all__ = ["Compression", "WriteResult", "WriterOptions", "write_image", "writer_name"]
_UNITS = BLOCK_SIZE // NID_SIZE
_WRITE_BYTES = 1 << 20
_MAX_THREADS = 64
_DEFAULT_THREADS = 8
"""More do not help, as one thread writes, and each thread takes some megabytes of memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterOptions:
    """How to write an image.  `threads` and `on_progress` do not change its bytes, all else does."""

    compression: Compression = field(default_factory=Compression)
    """Default: LZ4, which every kernel with EROFS can read."""
    cluster_size: int | None = None
    """Bytes of file data compressed together: a power of two, 4 KiB to 512 KiB; None: the default of the algorithm."""
    threads: int | None = None
    """Threads that compress; None: as many as there are processors, up to 8."""
    on_progress: Callable[[int], None] | None = None
    """Called with the number of further bytes of file data that are done, from the thread that writes."""

    def __post_init__(self) -> None:
        cluster = self.cluster_size
        if cluster is not None and (cluster & (cluster - 1) or not BLOCK_SIZE <= cluster <= MAX_CLUSTER_SIZE):
            raise UsageError(
                f"cluster size {cluster} is not a power of two from {BLOCK_SIZE} to {MAX_CLUSTER_SIZE} bytes"
            )
        if self.threads is not None and not 1 <= self.threads <= _MAX_THREADS:
            raise UsageError(f"{self.threads} threads: use 1 to {_MAX_THREADS}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteResult:
    """What was written."""

    size: int
    """Bytes of the image."""
    inodes: int
    data_bytes: int
    """Bytes of the regular files in the tree, before anything is compressed or shared."""
    uuid: str
    """Derived from the content."""
    writer: str
    """Names and versions of the programs that the bytes depend on."""


def writer_name(compression: Compression) -> str:
    """Return names and versions of the programs that the bytes of an image depend on: this writer and the codec."""
    return f"shed-erofs/{VERSION} {compression.library}".strip()


def write_image(entries: Iterable[Entry], out: BinaryIO, options: WriterOptions | None = None) -> WriteResult:
    """Write the tree of `entries` as an EROFS image into `out`, a new, empty file that can be read, written and sought.

    Raises `ErofsError` for a tree that breaks the contract of `Entry`, that EROFS cannot store, or whose contents are
    shorter than they should be; then `out` holds no image.  Raises `OSError` when reading contents or writing fails.
    """
    options = options or WriterOptions()
    compression = options.compression
    cluster = options.cluster_size or compression.default_cluster_size
    nodes = build_tree(entries)
    files = [node for node in nodes if stat.S_ISREG(node.entry.mode)]
    fingerprint = hashlib.sha256()
    out.seek(0)
    out.write(bytes(BLOCK_SIZE))
    with DataWriter(
        out,
        codec=compression.codec(),
        cluster_size=cluster,
        threads=options.threads or min(os.cpu_count() or 1, _DEFAULT_THREADS),
        fingerprint=fingerprint.update,
    ) as data:
        data.write(files, on_progress=options.on_progress)
        metadata = MetadataWriter(
            nodes, first_block=data.next_block, algorithm=compression.format or 0, tails=data.tails
        )
        if metadata.end_block >= layout.BLOCK_LIMIT:
            raise ErofsError(
                f"the image would have {metadata.end_block} blocks, more than EROFS can address", rule="too-large"
            )
        metadata.write(out, fingerprint.update)
    settings = compression.settings(max_blocks=data.max_blocks, max_cluster=cluster + cluster // 2)
    identity = content_uuid(fingerprint.digest())
    superblock = Superblock(
        feature_compat=layout.COMPAT_SB_CHKSUM | layout.COMPAT_MTIME,
        feature_incompat=_features(compression, nodes),
        root_nid=nodes[0].nid,
        inos=len(nodes),
        epoch=max(0, *(node.entry.mtime for node in nodes)),
        blocks=metadata.end_block,
        meta_blkaddr=metadata.meta_block,
        uuid=identity.bytes,
        compression=0 if compression.format is None else 1 << compression.format,
    )
    block = (bytes(layout.SUPER_OFFSET) + superblock.pack() + settings).ljust(BLOCK_SIZE, b"\0")
    checksum = superblock_checksum(block).to_bytes(4, "little")
    out.seek(0)
    out.write(block[: layout.SUPER_OFFSET + 4] + checksum + block[layout.SUPER_OFFSET + 8 :])
    out.seek(0, os.SEEK_END)
    return WriteResult(
        size=metadata.end_block * BLOCK_SIZE,
        inodes=len(nodes),
        data_bytes=sum(node.entry.size for node in files),
        uuid=str(identity),
        writer=writer_name(compression),
    )


def _features(compression: Compression, nodes: Iterable[Node]) -> int:
    features = 0
    if compression.format is not None:
        features |= layout.INCOMPAT_LZ4_0PADDING | layout.INCOMPAT_COMPR_CFGS | layout.INCOMPAT_BIG_PCLUSTER
    for node in nodes:
        if node.data is None:
            continue
        if node.data.layout == layout.LAYOUT_CHUNK_BASED:
            features |= layout.INCOMPAT_CHUNKED_FILE
        elif node.data.layout == layout.LAYOUT_COMPRESSED_FULL and node.data.tail_size:
            features |= layout.INCOMPAT_ZTAILPACKING
    return features


def content_uuid(digest: bytes) -> uuid.UUID:
    """Return a version 8 UUID ("custom", RFC 9562) made from `digest`."""
    value = int.from_bytes(digest[:16], "big")
    value = value & ~(0xF << 76) | 8 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return uuid.UUID(int=value)


# Metadata: inodes, and the blocks of directories and long symlinks.


class Space:
    """Allocates places in the metadata area, in units of 32 bytes.

    A block is filled from its start.  An inode goes into the fullest block that has room for it.  An inode that fits
    into one block, and every inline tail, does not cross the end of a block.
    """

    def __init__(self) -> None:
        self.blocks = 1
        self._begun: list[list[int]] = [[] for _ in range(_UNITS)]
        """By number of free units: the blocks with that many free units at their end."""
        self._mask = 0
        """Bit n is set when `_begun[n]` is not empty."""
        self._keep(0, _UNITS - 1)  # unit 0 stays empty: an inode number of 0 is hidden by C libraries

    def take(self, size: int, tail: int) -> int:
        """Return the nid of a place for `size` bytes, followed by `tail` bytes that must not cross a block."""
        units = -(-(size + tail) // NID_SIZE)
        if units <= _UNITS:
            fitting = self._mask >> units
            if fitting:
                free = units + (fitting & -fitting).bit_length() - 1
                block = self._begun[free].pop()
                if not self._begun[free]:
                    self._mask &= ~(1 << free)
            else:
                free, block = _UNITS, self.blocks
                self.blocks += 1
            self._keep(block, free - units)
            return block * _UNITS + _UNITS - free
        skip = 0
        room = -size % BLOCK_SIZE  # left in the block where the tail begins, if the inode begins a block
        if tail > room:
            skip = -(-room // NID_SIZE)
        block = self.blocks
        end = skip + units
        self.blocks += -(-end // _UNITS)
        self._keep(self.blocks - 1, -end % _UNITS)
        return block * _UNITS + skip

    def _keep(self, block: int, free: int) -> None:
        if free:
            self._begun[free].append(block)
            self._mask |= 1 << free


class MetadataWriter:
    """Places the inodes and writes all that is not file data, from block `first_block` of `out` on."""

    def __init__(self, nodes: list[Node], *, first_block: int, algorithm: int, tails: BinaryIO) -> None:
        self._nodes = nodes
        self._algorithm = algorithm
        self._tails = tails
        self._space = Space()
        self._plans: list[tuple[Node, int, int]] = []
        """Of each inode: the bytes of its data, and how many of them are inline and uncompressed."""
        self.meta_block = first_block
        self._place()

    @property
    def end_block(self) -> int:
        """The number of blocks of the whole image."""
        return self.meta_block + self._space.blocks

    def write(self, out: BinaryIO, fingerprint: Callable[[bytes], None]) -> None:
        """Write the metadata, and pass it to `fingerprint` too."""
        for data in _joined(self._outside()):
            fingerprint(data)
            out.write(data)
        for data in _joined(self._inodes()):
            fingerprint(data)
            out.write(data)

    def _place(self) -> None:
        for node in self._nodes:
            fixed = layout.EXTENDED_INODE_SIZE + len(node.xattrs)
            if node.data is not None:
                size, inline = node.entry.size, 0
                node.nid = self._space.take(fixed + index_size(node.data, size, fixed), node.data.tail_size)
            else:
                size, inline = _own_data(node, BLOCK_SIZE - fixed)
                node.nid = self._space.take(fixed, inline)
                node.block = self.meta_block
                self.meta_block += -(-(size - inline) // BLOCK_SIZE)
            self._plans.append((node, size, inline))

    def _outside(self) -> Iterator[bytes]:
        """Yield the blocks of directories and symlinks that are not inline, in order."""
        for node, size, inline in self._plans:
            if node.data is None and size > inline:
                kept = size - inline
                data = b"".join(_blocks_of(node))[:kept]
                yield data.ljust(layout.round_up(kept, BLOCK_SIZE), b"\0")

    def _inodes(self) -> Iterator[bytes]:
        position = 0
        for number, (node, size, inline) in sorted(enumerate(self._plans, 1), key=lambda item: item[1][0].nid):
            start = node.nid * NID_SIZE
            record = self._record(number, node, size, inline)
            yield bytes(start - position) + record
            position = start + len(record)
        yield bytes(self._space.blocks * BLOCK_SIZE - position)

    def _record(self, number: int, node: Node, size: int, inline: int) -> bytes:
        entry, data = node.entry, node.data
        if data is not None:
            kind, union = data.layout, data.union
            tail = pack_index(data, layout.EXTENDED_INODE_SIZE + len(node.xattrs), self._algorithm)
            if data.tail_size:
                self._tails.seek(data.tail_at)
                tail += self._tails.read(data.tail_size)
        else:
            kind = layout.LAYOUT_FLAT_INLINE if inline else layout.LAYOUT_FLAT_PLAIN
            union = node.block if size > inline else 0
            if node.type in (stat.S_IFCHR, stat.S_IFBLK):
                union = encode_device(*split_device(entry.rdev))
            tail = b"".join(_blocks_of(node))[size - inline :] if inline else b""
        inode = InodeRecord(
            layout.FORMAT_EXTENDED | kind << layout.FORMAT_LAYOUT_SHIFT, xattr_icount(node.xattrs), entry.mode,
            size, union, number, entry.uid, entry.gid, entry.mtime, entry.mtime_ns, node.nlink,
        )  # fmt: skip
        return inode.pack_extended() + node.xattrs + tail


def _own_data(node: Node, room: int) -> tuple[int, int]:
    """Return the bytes of data of a directory or symlink, and how many of them are inline.

    `room` is what inode and xattrs leave of a block.  Inode, xattrs and tail are kept together in one block: Linux 6.1
    cannot read an inline symlink otherwise.
    """
    if node.type == stat.S_IFDIR:
        size = directory_size(sorted([b".", b"..", *(name for name, _ in node.children)]))
    elif node.type == stat.S_IFLNK:
        size = len(node.entry.target)
    else:
        return 0, 0
    tail = size % BLOCK_SIZE
    return size, tail if tail <= room else 0


def _blocks_of(node: Node) -> Iterator[bytes]:
    if node.type == stat.S_IFLNK:
        yield node.entry.target
        return
    up = node.parent or node
    entries = [Dirent(b".", node.nid, layout.FT_DIR), Dirent(b"..", up.nid, layout.FT_DIR)]
    entries += [Dirent(name, child.nid, layout.FILE_TYPES[child.type]) for name, child in node.children]
    entries.sort()
    yield from pack_directory(entries)


def _joined(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Join small parts into pieces of about a megabyte."""
    kept: list[bytes] = []
    size = 0
    for part in parts:
        kept.append(part)
        size += len(part)
        if size >= _WRITE_BYTES:
            yield b"".join(kept)
            kept, size = [], 0
    if kept:
        yield b"".join(kept)
