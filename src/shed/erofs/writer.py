"""Writing an EROFS image: the same tree and the same options give the same bytes, on every machine, with any number of threads.

::

    block 0      superblock, compression settings
    block 1 ...  data of regular files, in the order of the tree
    ...          blocks of folders and symlinks that are not inline
    meta_blkaddr inodes, each with its xattrs, indexes and inline tail

The superblock is written last, so an image that was not finished has none.
"""

from __future__ import annotations

import hashlib
import os
import stat
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import BinaryIO

from shed.entries import Entry
from shed.erofs import layout
from shed.erofs.compress import MAX_CLUSTER_SIZE, Compression
from shed.erofs.errors import ErofsError
from shed.erofs.layout import BLOCK_SIZE, Superblock
from shed.erofs.writer_data import DataWriter
from shed.erofs.writer_meta import MetadataWriter
from shed.erofs.writer_tree import Node, build_tree
from shed.errors import UsageError
from shed.version import VERSION

__all__ = ["Compression", "WriteResult", "WriterOptions", "write_image", "writer_name"]
_MAX_THREADS = 64
_DEFAULT_THREADS = 8
"""More do not help: one thread writes.  And each has some megabytes in flight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterOptions:
    """How to write an image.  All but `threads` and `on_progress` decide its bytes."""

    compression: Compression = field(default_factory=Compression)
    """Default: LZ4, which every kernel with EROFS can read."""
    cluster_size: int | None = None
    """Bytes of file data compressed together: a power of two, 4 KiB to 512 KiB; None: the default of the algorithm."""
    threads: int | None = None
    """Threads that compress; None: as many as there are processors, up to 8."""
    on_progress: Callable[[int], None] | None = None
    """Told how many more bytes of file data are done, from the thread that writes."""

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
    """Name and version of all that decides the bytes."""


def writer_name(compression: Compression) -> str:
    """Return name and version of all that decides the bytes of an image written with `compression`."""
    return f"shed-erofs/{VERSION} {compression.library}".strip()


def write_image(entries: Iterable[Entry], out: BinaryIO, options: WriterOptions | None = None) -> WriteResult:
    """Write the tree of `entries` as an EROFS image into `out`, a new, empty file that can be read, written and sought.

    Raises `ErofsError` for a tree that breaks the contract of `Entry`, that EROFS cannot hold, or whose contents are
    shorter than they should be; what is in `out` is no image then.  Errors of reading contents and of writing are
    passed on.
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
    checksum = layout.superblock_checksum(block).to_bytes(4, "little")
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
    """Return a version 8 UUID ("custom", RFC 9562) made of `digest`."""
    value = int.from_bytes(digest[:16], "big")
    value = value & ~(0xF << 76) | 8 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return uuid.UUID(int=value)
