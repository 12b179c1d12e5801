"""Placing and writing inodes, and the blocks of folders and long symlinks."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from typing import BinaryIO

from shed.erofs import layout
from shed.erofs.layout import BLOCK_SIZE, NID_SIZE
from shed.erofs.writer_dirs import Dirent, directory_size, pack_directory
from shed.erofs.writer_index import index_size, pack_index
from shed.erofs.writer_tree import Node, split_device
from shed.erofs.writer_xattrs import xattr_icount

_UNITS = BLOCK_SIZE // NID_SIZE
_WRITE_BYTES = 1 << 20


class Space:
    """Hands out places in the metadata area, in units of 32 bytes, so that what must not cross a block does not.

    An inode goes into the fullest of the begun blocks that has room for it.
    """

    def __init__(self) -> None:
        self.blocks = 1
        self._begun: list[list[int]] = [[] for _ in range(_UNITS)]
        """By number of free units: the blocks that have them, at their end."""
        self._mask = 0
        """Bit n is set when `_begun[n]` is not empty."""
        self._keep(0, _UNITS - 1)  # unit 0 stays empty: an inode number of 0 is hidden by C libraries

    def take(self, size: int, tail: int) -> int:
        """Return the nid of a place for `size` bytes and then `tail` bytes that must not cross a block."""
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
        room = -size % BLOCK_SIZE  # what is left of the block where the tail begins, when the inode begins a block
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
    """Gives each inode its place and writes what is not file data, from block `first_block` of `out` on."""

    def __init__(self, nodes: list[Node], *, first_block: int, algorithm: int, tails: BinaryIO) -> None:
        self._nodes = nodes
        self._algorithm = algorithm
        self._tails = tails
        self._space = Space()
        self._plans: list[tuple[Node, int, int]] = []
        """Of each inode: bytes of its data, and how many of them are inline as they are."""
        self.meta_block = first_block
        self._place()

    @property
    def end_block(self) -> int:
        """The number of blocks of the whole image."""
        return self.meta_block + self._space.blocks

    def write(self, out: BinaryIO, fingerprint: Callable[[bytes], None]) -> None:
        """Write all that is planned; `fingerprint` is fed with it."""
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
        """Yield the blocks that folders and symlinks have outside their inodes, in order."""
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
                union = layout.encode_device(*split_device(entry.rdev))
            tail = b"".join(_blocks_of(node))[size - inline :] if inline else b""
        inode = layout.InodeRecord(
            layout.FORMAT_EXTENDED | kind << layout.FORMAT_LAYOUT_SHIFT, xattr_icount(node.xattrs), entry.mode, size, union, number,
            entry.uid, entry.gid, entry.mtime, entry.mtime_ns, node.nlink,
        )  # fmt: skip
        return inode.pack_extended() + node.xattrs + tail


def _own_data(node: Node, room: int) -> tuple[int, int]:
    """Return the bytes of data of what is not a regular file, and how many of them are inline when `room` is left in a block.

    Inode, xattrs and tail are kept together in one block: a kernel of 6.1 reads no inline symlink otherwise.
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
    """Put small parts together to pieces of about a megabyte."""
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
