"""The superblock: its fields and checksum, and the description of an image that follows from it.

Compression settings are stored behind the superblock, in the first block.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from shed.erofs import layout
from shed.erofs.errors import ErofsError
from shed.erofs.image_file import ImageFile

_MAX_ZSTD_WINDOW = 10
"""Largest value of the field windowlog.  The field is the logarithm less 10, so this is 1 MiB, the kernel's limit."""
_REFUSED = {layout.INCOMPAT_48BIT: "48bit", layout.INCOMPAT_METABOX: "metabox"}


class Superblock(NamedTuple):
    """The fields of erofs_super_block in their order, without those that only 48BIT and METABOX use."""

    magic: int = layout.MAGIC
    checksum: int = 0
    feature_compat: int = 0
    blkszbits: int = layout.BLOCK_BITS
    sb_extslots: int = 0
    """The superblock has 128 bytes, and 16 more for each of these."""
    root_nid: int = 0
    inos: int = 0
    epoch: int = 0
    """Base of the times of compact inodes, seconds (older kernels: the time of every compact inode)."""
    fixed_nsec: int = 0
    blocks: int = 0
    meta_blkaddr: int = 0
    xattr_blkaddr: int = 0
    uuid: bytes = bytes(16)
    volume_name: bytes = bytes(16)
    feature_incompat: int = 0
    compression: int = 0
    """With COMPR_CFGS a bit for each algorithm in use, else LZ4's largest distance (0: 65535)."""
    extra_devices: int = 0
    devt_slotoff: int = 0
    dirblkbits: int = 0
    """Directory block size in bits beyond blkszbits; kernels take 0 alone."""
    xattr_prefix_count: int = 0
    xattr_prefix_start: int = 0
    packed_nid: int = 0
    xattr_filter_reserved: int = 0
    ishare_xattr_prefix_id: int = 0
    build_time: int = 0
    root_nid_8b: int = 0

    def pack(self) -> bytes:
        """Return the 128 bytes on disk."""
        return layout.SUPERBLOCK.pack(*self)

    @classmethod
    def parse(cls, data: bytes | memoryview, offset: int = 0) -> Superblock:
        """Read the 128 bytes at `offset`; raises `struct.error` when they are not there."""
        return cls._make(layout.SUPERBLOCK.unpack_from(data, offset))

    @property
    def size(self) -> int:
        """Bytes of the superblock; compression settings follow it."""
        return layout.SUPERBLOCK.size + 16 * self.sb_extslots


@dataclass(frozen=True, slots=True)
class Description:
    """The superblock of an image, and what it means for every inode."""

    superblock: Superblock
    limit: int
    """Data lies below this byte: the end of the file or of the declared blocks, whichever comes first."""
    algorithms: frozenset[int]
    """Compression algorithms that inodes may use."""
    settings: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Fields of the settings record of each algorithm, where there are records."""

    def declares(self, feature: int) -> bool:
        """Whether the superblock has the incompat feature bit `feature`."""
        return bool(self.superblock.feature_incompat & feature)

    @property
    def lz4_limit(self) -> int:
        """Most encoded bytes of a physical cluster of LZ4: kernels reserve buffers of this size."""
        blocks = self.settings[layout.ALGORITHM_LZ4][1] if layout.ALGORITHM_LZ4 in self.settings else 1
        return (blocks or 1) * layout.BLOCK_SIZE

    @property
    def zstd_window(self) -> int:
        """Most bytes of history of a zstd stream: kernels reserve as many."""
        return (
            1 << (self.settings[layout.ALGORITHM_ZSTD][1] + layout.ZSTD_WINDOWLOG_BASE)
            if layout.ALGORITHM_ZSTD in self.settings
            else 0
        )

    @property
    def meta_start(self) -> int:
        """The byte of the image where nid 0 would be."""
        return self.superblock.meta_blkaddr * layout.BLOCK_SIZE

    @property
    def zero_padding(self) -> bool:
        """Whether compressed data is at the end of its physical cluster, with zeros before it."""
        return self.declares(layout.INCOMPAT_LZ4_0PADDING)


def read_description(file: ImageFile) -> Description:
    """Return the description of the image `file`; raises `ErofsError` when it is not an image that we can read."""
    if file.size < layout.BLOCK_SIZE:
        raise ErofsError(f"{file.path} is too short for an EROFS image: {file.size} bytes", rule="truncated")
    superblock = Superblock.parse(file.map[: layout.BLOCK_SIZE], layout.SUPER_OFFSET)
    if superblock.magic != layout.MAGIC:
        raise ErofsError(
            f"{file.path} is not an EROFS image: its magic number is {superblock.magic:#010x}", rule="magic"
        )
    if superblock.blkszbits != layout.BLOCK_BITS:
        raise ErofsError(
            f"{file.path}: block size is 2^{superblock.blkszbits}, not {layout.BLOCK_SIZE}",
            rule="block-size",
            hint="make the image with mkfs.erofs -b 4096: other sizes need a kernel with pages as large",
        )
    if superblock.feature_compat & layout.COMPAT_SB_CHKSUM:
        checksum = superblock_checksum(file.map[: layout.BLOCK_SIZE])
        if checksum != superblock.checksum:
            raise ErofsError(
                f"superblock checksum is {superblock.checksum:#010x}, its bytes give {checksum:#010x}", rule="checksum"
            )
    _check_features(superblock)
    if superblock.size > layout.BLOCK_SIZE - layout.SUPER_OFFSET:
        raise ErofsError(f"superblock of {superblock.size} bytes does not fit its block", rule="superblock-size")
    if superblock.dirblkbits:
        raise ErofsError("directory blocks differ from file system blocks", rule="directory-block-size")
    declared = superblock.blocks * layout.BLOCK_SIZE
    if declared > file.size:
        raise ErofsError(f"{file.path} is cut off: {file.size} bytes of {declared}", rule="truncated")
    settings = _read_settings(file, superblock)
    algorithms = (
        frozenset(settings)
        if superblock.feature_incompat & layout.INCOMPAT_COMPR_CFGS
        else frozenset({layout.ALGORITHM_LZ4})
    )
    return Description(superblock, declared, algorithms, settings)


def _check_features(superblock: Superblock) -> None:
    known = 0
    for bit in layout.INCOMPAT_NAMES:
        known |= bit
    unknown = superblock.feature_incompat & ~known
    if unknown:
        raise ErofsError(f"unknown incompatible features {unknown:#x}", rule="unknown-feature",
                         hint="the image was made for a newer reader")  # fmt: skip
    refused = [name for bit, name in _REFUSED.items() if superblock.feature_incompat & bit]
    if refused:
        raise ErofsError(f"images with {' and '.join(refused)} are not supported", rule="unsupported-feature")
    if superblock.extra_devices:
        raise ErofsError("images over several devices are not supported", rule="unsupported-feature")


_RECORDS = {
    layout.ALGORITHM_LZ4: layout.LZ4_CFG,
    layout.ALGORITHM_LZMA: layout.LZMA_CFG,
    layout.ALGORITHM_DEFLATE: layout.DEFLATE_CFG,
    layout.ALGORITHM_ZSTD: layout.ZSTD_CFG,
}


def _read_settings(file: ImageFile, superblock: Superblock) -> dict[int, tuple[int, ...]]:
    """Return the settings record of each algorithm.

    They follow the superblock in the order of the algorithms' numbers.
    """
    settings: dict[int, tuple[int, ...]] = {}
    if not superblock.feature_incompat & layout.INCOMPAT_COMPR_CFGS:
        return settings
    if superblock.compression >> len(layout.ALGORITHM_NAMES):
        raise ErofsError(f"unknown compression algorithms {superblock.compression:#x}", rule="unknown-algorithm")
    position = layout.SUPER_OFFSET + superblock.size
    for algorithm, name in enumerate(layout.ALGORITHM_NAMES):
        if not superblock.compression >> algorithm & 1:
            continue
        record = _RECORDS[algorithm]
        position = layout.round_up(position, 4)
        (size,) = file.unpack(layout.COMPR_CFG_SIZE, position, rule="compression-settings")
        if size < record.size:
            raise ErofsError(
                f"settings record of {name} has {size} bytes, not {record.size}", rule="compression-settings"
            )
        settings[algorithm] = file.unpack(record, position + layout.COMPR_CFG_SIZE.size, rule="compression-settings")
        position += layout.COMPR_CFG_SIZE.size + size
    if layout.ALGORITHM_LZ4 in settings:
        blocks = settings[layout.ALGORITHM_LZ4][1]
        if blocks > layout.PCLUSTER_MAX_SIZE // layout.BLOCK_SIZE:
            raise ErofsError(f"physical clusters of LZ4 of up to {blocks} blocks", rule="compression-settings")
    if layout.ALGORITHM_ZSTD in settings and settings[layout.ALGORITHM_ZSTD][1] > _MAX_ZSTD_WINDOW:
        raise ErofsError("zstd streams with a window of more than 1 MiB", rule="compression-settings")
    return settings


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for index in range(256):
        value = index
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC32C = _crc32c_table()


def crc32c(data: bytes | memoryview, value: int = 0xFFFFFFFF) -> int:
    """Return the CRC-32C of `data` without the final inversion, as Linux computes it."""
    table = _CRC32C
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ value >> 8
    return value


def superblock_checksum(block: bytes | memoryview) -> int:
    """Return the checksum of the first block of an image.

    It covers byte 1024 to the end of the block, with zeros in the checksum field.
    """
    data = bytearray(block[layout.SUPER_OFFSET : layout.BLOCK_SIZE])
    data[4:8] = bytes(4)
    return crc32c(bytes(data))
