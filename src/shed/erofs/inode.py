"""Inodes: the records on disk, and an inode of an image, checked so that all it points at is inside the image."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import NamedTuple

from shed.erofs import layout
from shed.erofs.errors import ErofsError
from shed.erofs.image_file import ImageFile
from shed.erofs.superblock import Description, Superblock

_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


class InodeRecord(NamedTuple):
    """The fields of an inode on disk, of either form.  The time of a compact inode is already made absolute."""

    format: int
    xattr_icount: int
    mode: int
    size: int
    union: int
    """i_u: blocks of a compressed inode, first block of a flat one, device number, or chunk format."""
    ino: int
    uid: int
    gid: int
    mtime: int
    mtime_ns: int
    nlink: int

    @property
    def extended(self) -> bool:
        """Whether the record has 64 bytes, not 32."""
        return bool(self.format & layout.FORMAT_EXTENDED)

    @property
    def layout(self) -> int:
        """One of LAYOUT_*; 5 to 7 are reserved."""
        return self.format >> layout.FORMAT_LAYOUT_SHIFT & layout.FORMAT_LAYOUT_MASK

    def pack_extended(self) -> bytes:
        """Return the 64-byte form."""
        return layout.INODE_EXTENDED.pack(
            self.format, self.xattr_icount, self.mode, 0, self.size, self.union, self.ino, self.uid, self.gid,
            self.mtime, self.mtime_ns, self.nlink,
        )  # fmt: skip


def parse_inode(data: bytes | memoryview, offset: int, superblock: Superblock) -> InodeRecord:
    """Read the inode record at `offset`; its first bit says whether it is compact or extended.

    Raises `struct.error` when it is cut off.
    """
    if data[offset] & layout.FORMAT_EXTENDED:
        form, icount, mode, _, size, union, ino, uid, gid, mtime, mtime_ns, nlink = layout.INODE_EXTENDED.unpack_from(
            data, offset
        )
        return InodeRecord(form, icount, mode, size, union, ino, uid, gid, mtime, mtime_ns, nlink)
    form, icount, mode, nlink, size, mtime, union, ino, uid, gid, _ = layout.INODE_COMPACT.unpack_from(data, offset)
    return InodeRecord(
        form, icount, mode, size, union, ino, uid, gid, superblock.epoch + mtime, superblock.fixed_nsec, nlink
    )


@dataclass(slots=True, eq=False)
class Inode:
    """An inode of an image."""

    nid: int
    mode: int
    """Type and permission bits, as in `stat`."""
    size: int
    uid: int
    gid: int
    mtime: int
    """Seconds since the epoch; may be negative."""
    mtime_ns: int
    nlink: int
    layout: int
    """One of `layout.LAYOUT_*`."""
    extended: bool
    union: int
    """i_u: first block of a flat inode, device number, chunk format, or blocks of a compressed inode."""
    xattr_icount: int
    offset: int
    """Byte of the image where the record begins."""
    body: int
    """Byte of the image where the xattrs end, and inline data or indexes begin."""

    @property
    def type(self) -> int:
        """The type bits of the mode."""
        return self.mode & 0o170000

    @property
    def kind(self) -> str:
        """The type in words."""
        return _KINDS[self.type]

    @property
    def compressed(self) -> bool:
        """Whether the data is compressed, and described by cluster indexes."""
        return self.layout in (layout.LAYOUT_COMPRESSED_FULL, layout.LAYOUT_COMPRESSED_COMPACT)

    @property
    def device(self) -> tuple[int, int] | None:
        """Major and minor number of a device, None for all else."""
        return decode_device(self.union) if self.type in _DEVICES else None

    @property
    def tail(self) -> int:
        """Number of bytes at the end of the file that are stored behind the inode (FLAT_INLINE).

        A full block counts as tail too.
        """
        if self.layout != layout.LAYOUT_FLAT_INLINE or self.size == 0:
            return 0
        return (self.size - 1) % layout.BLOCK_SIZE + 1


def load_inode(file: ImageFile, description: Description, nid: int) -> Inode:
    """Return inode `nid`; raises `ErofsError` when there is none, or when it points outside the image."""
    superblock = description.superblock
    offset = description.meta_start + nid * layout.NID_SIZE
    file.check(offset, layout.COMPACT_INODE_SIZE, rule="inode-outside", nid=nid)
    extended = file.map[offset] & layout.FORMAT_EXTENDED
    size = layout.EXTENDED_INODE_SIZE if extended else layout.COMPACT_INODE_SIZE
    file.check(offset, size, rule="inode-outside", nid=nid)
    record = parse_inode(file.map[offset : offset + size], 0, superblock)
    form = record.format
    kind = form >> layout.FORMAT_LAYOUT_SHIFT & layout.FORMAT_LAYOUT_MASK
    if form > layout.FORMAT_ALL or form & layout.FORMAT_NLINK_1 or kind >= len(layout.LAYOUT_NAMES):
        raise ErofsError(f"unknown inode format {form:#x}", rule="inode-format", nid=nid)
    if record.mode & 0o170000 not in _KINDS:
        raise ErofsError(f"mode {record.mode:#o} has no known file type", rule="file-type", nid=nid)
    if record.size >> 63:
        raise ErofsError(f"size {record.size} is out of range", rule="inode-size", nid=nid)
    body = offset + size + layout.xattr_ibody_size(record.xattr_icount)
    if body > file.size:
        raise ErofsError("xattrs are outside the image", rule="xattr-outside", nid=nid)
    inode = Inode(
        nid, record.mode, record.size, record.uid, record.gid, _signed(record.mtime), record.mtime_ns, record.nlink,
        kind, bool(extended), record.union, record.xattr_icount, offset, body,
    )  # fmt: skip
    if kind in (layout.LAYOUT_FLAT_PLAIN, layout.LAYOUT_FLAT_INLINE) and inode.size and inode.type not in _DEVICES:
        _check_flat(inode, description.limit)
    return inode


def _check_flat(inode: Inode, limit: int) -> None:
    """Check that the blocks of a flat inode are inside the image, and that its inline tail is within one block."""
    tail = inode.tail
    outside = inode.size - tail
    if outside and inode.union * layout.BLOCK_SIZE + outside > limit:
        raise ErofsError(
            f"data of {outside} bytes at block {inode.union} is outside the image", rule="data-outside", nid=inode.nid
        )
    if tail:
        if inode.body % layout.BLOCK_SIZE + tail > layout.BLOCK_SIZE:
            raise ErofsError(f"inline tail of {tail} bytes crosses a block", rule="inline-crosses-block", nid=inode.nid)
        if inode.body + tail > limit:
            raise ErofsError("inline tail is outside the image", rule="data-outside", nid=inode.nid)


def _signed(seconds: int) -> int:
    """Return a time as the kernel reads it: as a signed number of 64 bits."""
    seconds &= (1 << 64) - 1
    return seconds - (1 << 64) if seconds >> 63 else seconds


def encode_device(major: int, minor: int) -> int:
    """Return a device number as on disk (``new_encode_dev`` of linux/kdev_t.h)."""
    return (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & 0xFFF00) << 12


def decode_device(value: int) -> tuple[int, int]:
    """Return major and minor of a device number on disk (``new_decode_dev``)."""
    return value >> 8 & 0xFFF, (value & 0xFF) | value >> 12 & 0xFFF00
