"""The on-disk format: its constants and records, and where things lie.

Source: Linux ``fs/erofs/erofs_fs.h`` (names follow it), ``fs/erofs/zmap.c`` for where indexes lie, ``fs/erofs/super.c``
for the checksum and ``fs/erofs/decompressor*.c`` for the records of compression settings.  All numbers are
little-endian.  This module does no I/O and checks nothing.  Writer, reader and checker share it; each applies its own
rules.

::

    0      1024        +128              (4-byte aligned)      meta_blkaddr
    | boot | superblock | compression settings, if any | ... | inodes, each at 32 * nid |
    inode  = record (32 or 64) + xattrs (12 + 4 * (icount - 1)) + what its data layout needs:
      FLAT_INLINE        the last bytes of the data, which never cross a block
      COMPRESSED_FULL    round up to 8; z_erofs_map_header (8); 8 unused; one 8-byte index per logical cluster
      COMPRESSED_COMPACT round up to 8; z_erofs_map_header (8); packs of 4-byte or 2-byte indexes
      CHUNK_BASED        round up to 4 or 8; block addresses or chunk indexes
"""

from __future__ import annotations

import stat
from struct import Struct

MAGIC = 0xE0F5E1E2
SUPER_OFFSET = 1024
BLOCK_BITS = 12
BLOCK_SIZE = 1 << BLOCK_BITS
"""The only block size that we write and read: kernels of every page size can mount it."""
NID_SIZE = 32
"""An inode's address is meta_blkaddr * block size + nid * 32."""
ROOT_NID_LIMIT = 1 << 16
BLOCK_LIMIT = 1 << 32
"""Block addresses are 32 bits wide (48BIT aside)."""

# feature_compat
COMPAT_SB_CHKSUM = 0x0001
COMPAT_MTIME = 0x0002
COMPAT_XATTR_FILTER = 0x0004
COMPAT_SHARED_EA_IN_METABOX = 0x0008
COMPAT_PLAIN_XATTR_PFX = 0x0010

# feature_incompat; one bit sometimes stands for two things that came together
INCOMPAT_LZ4_0PADDING = 0x0001
INCOMPAT_COMPR_CFGS = 0x0002
INCOMPAT_BIG_PCLUSTER = 0x0002
INCOMPAT_CHUNKED_FILE = 0x0004
INCOMPAT_DEVICE_TABLE = 0x0008
INCOMPAT_COMPR_HEAD2 = 0x0008
INCOMPAT_ZTAILPACKING = 0x0010
INCOMPAT_FRAGMENTS = 0x0020
INCOMPAT_DEDUPE = 0x0020
INCOMPAT_XATTR_PREFIXES = 0x0040
INCOMPAT_48BIT = 0x0080
INCOMPAT_METABOX = 0x0100
INCOMPAT_NAMES: dict[int, str] = {
    INCOMPAT_LZ4_0PADDING: "lz4_0padding",
    INCOMPAT_BIG_PCLUSTER: "big_pcluster",
    INCOMPAT_CHUNKED_FILE: "chunked_file",
    INCOMPAT_COMPR_HEAD2: "compr_head2/device_table",
    INCOMPAT_ZTAILPACKING: "ztailpacking",
    INCOMPAT_FRAGMENTS: "fragments/dedupe",
    INCOMPAT_XATTR_PREFIXES: "xattr_prefixes",
    INCOMPAT_48BIT: "48bit",
    INCOMPAT_METABOX: "metabox",
}
COMPAT_NAMES: dict[int, str] = {
    COMPAT_SB_CHKSUM: "sb_csum",
    COMPAT_MTIME: "mtime",
    COMPAT_XATTR_FILTER: "xattr_filter",
    COMPAT_SHARED_EA_IN_METABOX: "shared_ea_in_metabox",
    COMPAT_PLAIN_XATTR_PFX: "plain_xattr_pfx",
}

# i_format
FORMAT_EXTENDED = 0x0001
FORMAT_LAYOUT_SHIFT = 1
FORMAT_LAYOUT_MASK = 0x0007
FORMAT_NLINK_1 = 0x0010
"""On a compact inode that is no folder, with 48BIT: nlink is 1, and the field is the high part of an address."""
FORMAT_ALL = 0x001F
LAYOUT_FLAT_PLAIN = 0
LAYOUT_COMPRESSED_FULL = 1
LAYOUT_FLAT_INLINE = 2
LAYOUT_COMPRESSED_COMPACT = 3
LAYOUT_CHUNK_BASED = 4
LAYOUT_NAMES = ("flat_plain", "compressed_full", "flat_inline", "compressed_compact", "chunk_based")
COMPACT_INODE_SIZE = 32
EXTENDED_INODE_SIZE = 64
NULL_ADDRESS = 0xFFFFFFFF
"""As the block address of a chunk: a hole."""

CHUNK_FORMAT_BLKBITS_MASK = 0x001F
CHUNK_FORMAT_INDEXES = 0x0020
CHUNK_FORMAT_48BIT = 0x0040

# file types of directory entries
FT_UNKNOWN, FT_REG_FILE, FT_DIR, FT_CHRDEV, FT_BLKDEV, FT_FIFO, FT_SOCK, FT_SYMLINK = range(8)
FILE_TYPES: dict[int, int] = {
    stat.S_IFREG: FT_REG_FILE,
    stat.S_IFDIR: FT_DIR,
    stat.S_IFCHR: FT_CHRDEV,
    stat.S_IFBLK: FT_BLKDEV,
    stat.S_IFIFO: FT_FIFO,
    stat.S_IFSOCK: FT_SOCK,
    stat.S_IFLNK: FT_SYMLINK,
}
"""From the type bits of a mode to the type of a directory entry."""
NAME_MAX = 255

# xattrs
XATTR_INDEX_USER = 1
XATTR_INDEX_POSIX_ACL_ACCESS = 2
XATTR_INDEX_POSIX_ACL_DEFAULT = 3
XATTR_INDEX_TRUSTED = 4
XATTR_INDEX_LUSTRE = 5
XATTR_INDEX_SECURITY = 6
XATTR_PREFIXES: dict[int, bytes] = {
    XATTR_INDEX_USER: b"user.",
    XATTR_INDEX_POSIX_ACL_ACCESS: b"system.posix_acl_access",
    XATTR_INDEX_POSIX_ACL_DEFAULT: b"system.posix_acl_default",
    XATTR_INDEX_TRUSTED: b"trusted.",
    XATTR_INDEX_SECURITY: b"security.",
}
"""What a name index stands for; the two ACL names are complete, nothing follows them."""
XATTR_LONG_PREFIX = 0x80
XATTR_LONG_PREFIX_MASK = 0x7F
XATTR_FILTER_DEFAULT = 0xFFFFFFFF
XATTR_FILTER_SEED = 0x25BBE08F
XATTR_SHARED_ID_SIZE = 4
"""A shared xattr lies at xattr_blkaddr * block size + id * 4."""

# compression
ALGORITHM_LZ4, ALGORITHM_LZMA, ALGORITHM_DEFLATE, ALGORITHM_ZSTD = range(4)
ALGORITHM_NAMES = ("lz4", "lzma", "deflate", "zstd")
PCLUSTER_MAX_SIZE = 1 << 20
"""Encoded bytes of one physical cluster."""
PCLUSTER_MAX_DSIZE = 12 << 20
"""Decoded bytes of one physical cluster."""
LZ4_MAX_DISTANCE = 65535
ZSTD_WINDOWLOG_BASE = 10
"""The settings record holds the window log less this."""

# z_erofs_map_header.h_advise
ADVISE_COMPACTED_2B = 0x0001
ADVISE_EXTENTS = 0x0001
"""The same bit, on an inode with full indexes: extent records instead (Linux 6.15)."""
ADVISE_BIG_PCLUSTER_1 = 0x0002
ADVISE_BIG_PCLUSTER_2 = 0x0004
ADVISE_INLINE_PCLUSTER = 0x0008
ADVISE_INTERLACED_PCLUSTER = 0x0010
ADVISE_FRAGMENT_PCLUSTER = 0x0020
ADVISE_ALL = 0x003F
FRAGMENT_INODE_BIT = 0x80
"""In h_clusterbits (the top bit of the header): the whole file is in the packed inode."""

# logical clusters, in both kinds of indexes
LCLUSTER_PLAIN, LCLUSTER_HEAD1, LCLUSTER_NONHEAD, LCLUSTER_HEAD2 = range(4)
LCLUSTER_TYPE_MASK = 0x0003
LI_PARTIAL_REF = 1 << 15
LI_D0_CBLKCNT = 1 << 11
"""Set in delta[0] of the first NONHEAD after a head of a big pcluster: the rest is the encoded size in blocks."""
# Compact indexes: a pack is N items of (2 bits of type above a low value as wide as a logical cluster's bits), then a
# 32-bit block address. For 4096-byte logical clusters: 2 items of 16 bits in 8 bytes ("4B"), or 16 items of 14 bits in
# 32 bytes ("2B", aligned to 32).
COMPACT_4B_ITEMS = 2
COMPACT_4B_PACK = 8
COMPACT_2B_ITEMS = 16
COMPACT_2B_PACK = 32

SUPERBLOCK = Struct("<IIIBBHQQIIII16s16sIHHHBBIQBB2xIQ8x")
INODE_COMPACT = Struct("<HHHHIIIIHHI")
"""i_format, i_xattr_icount, i_mode, i_nlink, i_size, i_mtime, i_u, i_ino, i_uid, i_gid, reserved."""
INODE_EXTENDED = Struct("<HHHHQIIIIqII16x")
"""i_format, i_xattr_icount, i_mode, i_nb, i_size, i_u, i_ino, i_uid, i_gid, i_mtime, i_mtime_nsec, i_nlink."""
DIRENT = Struct("<QHBB")
"""nid, nameoff, file_type, reserved."""
XATTR_IBODY_HEADER = Struct("<IB7x")
"""h_name_filter, h_shared_count; then that many 4-byte ids of shared xattrs, then entries."""
XATTR_ENTRY = Struct("<BBH")
"""e_name_len, e_name_index, e_value_size; then name and value, padded to 4 bytes."""
MAP_HEADER = Struct("<IHBB")
"""h_fragmentoff (or its high half: h_idata_size), h_advise, h_algorithmtype, h_clusterbits."""
LCLUSTER_INDEX = Struct("<HHI")
"""di_advise, di_clusterofs, di_u: the block address of a head, or delta[0] | delta[1] << 16."""
CHUNK_INDEX = Struct("<HHI")
"""startblk_hi, device_id, startblk_lo."""
COMPR_CFG_SIZE = Struct("<H")
"""Before each record of compression settings, which starts at a multiple of 4: its size, without these two bytes."""
LZ4_CFG = Struct("<HH10x")
"""max_distance, max_pclusterblks."""
LZMA_CFG = Struct("<IH8x")
"""dict_size, format."""
DEFLATE_CFG = Struct("<B5x")
"""windowbits."""
ZSTD_CFG = Struct("<BB4x")
"""format (0), window log - 10."""


def xattr_ibody_size(icount: int) -> int:
    """Return the bytes that the inline xattrs of an inode take, header included; `icount` is its i_xattr_icount."""
    return XATTR_IBODY_HEADER.size + 4 * (icount - 1) if icount else 0


def xattr_entry_size(name_length: int, value_length: int) -> int:
    """Return the bytes one xattr takes, padding included; `name_length` is without the prefix."""
    return round_up(XATTR_ENTRY.size + name_length + value_length, 4)


def map_header_start(end: int) -> int:
    """Return where z_erofs_map_header is, when the inode's xattrs end at `end`."""
    return round_up(end, 8)


def full_index_start(end: int) -> int:
    """Return where full indexes begin, when the inode's xattrs end at `end`: 8 bytes behind the header are unused."""
    return round_up(end, 8) + MAP_HEADER.size + 8


def compact_index_start(end: int) -> int:
    """Return where compact indexes begin, when the inode's xattrs end at `end`."""
    return round_up(end, 8) + MAP_HEADER.size


def round_up(value: int, multiple: int) -> int:
    """Return the smallest multiple of `multiple` that is not below `value`."""
    return -(-value // multiple) * multiple
