"""The pure parts: logical cluster indexes, places of inodes, folders, xattrs, codecs of the structures."""

from __future__ import annotations

import itertools
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shed.erofs import layout
from shed.erofs.clusters import FileData, Run, Storage, index_size, pack_index
from shed.erofs.directories import Dirent, directory_size, pack_directory
from shed.erofs.errors import ErofsError
from shed.erofs.inode import InodeRecord, decode_device, encode_device, parse_inode
from shed.erofs.superblock import Superblock, crc32c
from shed.erofs.tree import split_device
from shed.erofs.writer import Space
from shed.erofs.xattrs import pack_xattrs, xattr_icount

CBLKCNT = layout.LI_D0_CBLKCNT


def indexes(*extents: Run, tail: int = 0) -> list[tuple[int, int, int, int]]:
    """The full indexes of a file: type, clusterofs, and the union's two halves."""
    data = FileData(layout.LAYOUT_COMPRESSED_FULL, runs=extents, tail_size=tail)
    packed = pack_index(data, 64, layout.ALGORITHM_LZ4)
    size = sum(extent.length for extent in extents)
    assert len(packed) == index_size(data, size, 64)
    return list(struct.iter_unpack("<HHHH", packed[16:]))


def test_indexes_of_whole_clusters() -> None:
    """A head, the encoded size at the next index, then distances back and forth."""
    assert indexes(Run(Storage.COMPRESSED, 4 * 4096, 0x12345, 2), Run(Storage.PLAIN, 8192, 7, 2)) == [
        (1, 0, 0x2345, 1),
        (2, 0, CBLKCNT | 2, 3),
        (2, 0, 2, 2),
        (2, 0, 3, 1),
        (0, 0, 7, 0),
        (0, 0, 8, 0),
    ]


def test_a_partial_last_cluster_has_a_plain_head_that_holds_nothing() -> None:
    """Its offset says where the compressed extent ends."""
    assert indexes(Run(Storage.COMPRESSED, 10_000, 9, 1)) == [
        (1, 0, 9, 0),
        (2, 0, CBLKCNT | 1, 1),
        (0, 10_000 - 8192, 0, 0),
    ]


def test_an_extent_of_one_cluster_and_a_bit_has_no_size() -> None:
    """Without a second whole cluster there is no index for the encoded size: it is one block."""
    assert indexes(Run(Storage.COMPRESSED, 4097, 9, 1)) == [(1, 0, 9, 0), (0, 1, 0, 0)]


def test_indexes_of_inline_pieces() -> None:
    """An inline piece has no address; the header has its size and says that there is one."""
    assert indexes(Run(Storage.PLAIN, 4096, 5, 1), Run(Storage.INLINE_PLAIN, 100), tail=100) == [
        (0, 0, 5, 0),
        (0, 0, 0, 0),
    ]
    assert indexes(Run(Storage.INLINE_COMPRESSED, 3000), tail=900) == [(1, 0, 0, 0)]
    assert indexes(Run(Storage.INLINE_COMPRESSED, 9000), tail=900) == [
        (1, 0, 0, 0),
        (2, 0, CBLKCNT | 1, 1),
        (0, 808, 0, 0),
    ]
    packed = pack_index(
        FileData(1, 0, [Run(Storage.INLINE_COMPRESSED, 3000)], tail_size=900), 68, layout.ALGORITHM_ZSTD
    )
    assert packed[:4] == bytes(4)
    flags = layout.ADVISE_BIG_PCLUSTER_1 | layout.ADVISE_INLINE_PCLUSTER
    assert layout.MAP_HEADER.unpack_from(packed, 4) == (900 << 16, flags, layout.ALGORITHM_ZSTD, 0)


def test_chunk_maps() -> None:
    """Data chunks have their addresses, holes the null address."""
    extents = [Run(Storage.PLAIN, 3 * 8192, 100, 6), Run(Storage.ZERO, 8192), Run(Storage.PLAIN, 5000, 106, 2)]
    data = FileData(layout.LAYOUT_CHUNK_BASED, 1, extents, chunk_bits=13)
    packed = pack_index(data, 64, 0)
    assert struct.unpack("<5I", packed) == (100, 102, 104, 0xFFFFFFFF, 106)
    assert len(packed) == index_size(data, sum(extent.length for extent in extents), 64)


@given(st.lists(st.tuples(st.integers(64, 9000).map(lambda size: size // 4 * 4), st.integers(0, 4064)), max_size=200))
def test_places_are_apart_and_tails_are_whole(wanted: list[tuple[int, int]]) -> None:
    """Whatever the sizes: no two inodes overlap, no tail crosses a block, what fits in a block is in one, nobody is nid
    0.
    """
    space = Space()
    taken: list[tuple[int, int]] = []
    for size, tail in wanted:
        start = space.take(size, tail) * 32
        end = start + size + tail
        assert start >= 32
        assert end <= space.blocks * 4096
        if tail:
            assert (start + size) // 4096 == (end - 1) // 4096
        if size + tail <= 4096:
            assert start // 4096 == (end - 1) // 4096
        taken.append((start, end))
    taken.sort()
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(taken))


def test_places_fill_blocks() -> None:
    """A thousand inodes of 96 bytes leave hardly a gap."""
    space = Space()
    for _ in range(1000):
        space.take(96, 0)
    assert space.blocks <= 1 + 1000 * 96 // 4096 + 1


@given(
    st.sets(
        st.binary(min_size=1, max_size=255).filter(lambda name: b"\0" not in name and b"/" not in name), max_size=300
    )
)
def test_directories_are_read_back(names: set[bytes]) -> None:
    """Blocks hold whole entries; the number of entries and each name's length follow from the offsets; the size is as
    announced.
    """
    entries = [Dirent(name, number, number % 8) for number, name in enumerate(sorted(names | {b".", b".."}), 1)]
    blocks = list(pack_directory(entries))
    assert directory_size(entry.name for entry in entries) == sum(map(len, blocks))
    assert all(len(block) == 4096 for block in blocks[:-1])
    found = []
    for block in blocks:
        count = struct.unpack_from("<H", block, 8)[0] // 12
        heads = [layout.DIRENT.unpack_from(block, 12 * number) for number in range(count)]
        ends = [head[1] for head in heads[1:]] + [len(block)]
        for (nid, offset, file_type, reserved), end in zip(heads, ends, strict=True):
            assert reserved == 0
            found.append(Dirent(block[offset:end].rstrip(b"\0"), nid, file_type))
    assert found == entries


@given(
    st.dictionaries(
        st.tuples(st.sampled_from([b"user.", b"trusted.", b"security."]), st.binary(min_size=1, max_size=255)).map(
            b"".join
        ),
        st.binary(max_size=100),
        max_size=20,
    )
)
def test_xattrs_are_read_back(xattrs: dict[bytes, bytes]) -> None:
    """Entries are sorted, aligned to four bytes, and found again by their size alone."""
    xattrs = {name: value for name, value in xattrs.items() if b"\0" not in name}
    packed = pack_xattrs(xattrs, "/f")
    assert layout.xattr_ibody_size(xattr_icount(packed)) == len(packed)
    found = {}
    at = layout.XATTR_IBODY_HEADER.size
    while at < len(packed):
        name_length, index, value_length = layout.XATTR_ENTRY.unpack_from(packed, at)
        name = packed[at + 4 : at + 4 + name_length]
        found[layout.XATTR_PREFIXES[index] + name] = packed[at + 4 + name_length : at + 4 + name_length + value_length]
        at += layout.xattr_entry_size(name_length, value_length)
    assert list(found.items()) == sorted(xattrs.items())


def test_xattr_errors_name_file_and_attribute() -> None:
    """Attribute names are shown readably, whatever bytes they hold."""
    with pytest.raises(ErofsError, match=r"xattr name 'other\.a' of /f"):
        pack_xattrs({b"other.a": b""}, "/f")


@given(st.integers(0, 0xFFF), st.integers(0, 0xFFFFF))
def test_device_numbers(major: int, minor: int) -> None:
    """From what os.makedev makes to what is on disk, and back."""
    assert split_device(os.makedev(major, minor)) == (major, minor)
    assert decode_device(encode_device(major, minor)) == (major, minor)


def test_large_device_numbers_are_seen_as_such() -> None:
    """Numbers beyond what EROFS holds are not cut off before they are checked."""
    assert split_device(os.makedev(0x12345, 0x7ABCDE01)) == (0x12345, 0x7ABCDE01)


def test_structures_have_their_sizes() -> None:
    """As erofs_fs.h asserts them at compile time."""
    sizes = {
        layout.SUPERBLOCK: 128, layout.INODE_COMPACT: 32, layout.INODE_EXTENDED: 64, layout.XATTR_IBODY_HEADER: 12,
        layout.XATTR_ENTRY: 4, layout.MAP_HEADER: 8, layout.LCLUSTER_INDEX: 8, layout.CHUNK_INDEX: 8, layout.DIRENT: 12,
        layout.LZ4_CFG: 14, layout.LZMA_CFG: 14, layout.DEFLATE_CFG: 6, layout.ZSTD_CFG: 6,
    }  # fmt: skip
    assert {structure.format: structure.size for structure in sizes} == {
        structure.format: size for structure, size in sizes.items()
    }


def test_crc32c_of_the_standard_check_string() -> None:
    """The value published for CRC-32C, before its final inversion."""
    assert crc32c(b"123456789") ^ 0xFFFFFFFF == 0xE3069283


def test_superblock_is_read_back() -> None:
    """Every field survives."""
    fields = {name: 1 + number for number, name in enumerate(Superblock._fields)}
    superblock = Superblock(**{**fields, "uuid": bytes(range(16)), "volume_name": b"n" * 16})  # type: ignore[arg-type]
    assert Superblock.parse(b"xy" + superblock.pack(), 2) == superblock


@pytest.mark.parametrize("mtime", [-(1 << 63), -1, 0, (1 << 63) - 1])
def test_extended_inodes_are_read_back(mtime: int) -> None:
    """Times of any sign survive."""
    record = InodeRecord(0b11, 5, 0o100644, 1 << 40, 7, 8, 9, 0xFFFFFFFF, mtime, 999, 3)
    packed = record.pack_extended()
    assert len(packed) == layout.EXTENDED_INODE_SIZE
    assert parse_inode(packed, 0, Superblock()) == record
    assert record.extended
    assert record.layout == layout.LAYOUT_COMPRESSED_FULL


def test_compact_inodes_take_their_time_from_the_superblock() -> None:
    """The seconds add to the epoch; the nanoseconds are everybody's."""
    packed = layout.INODE_COMPACT.pack(0, 0, 0o100644, 2, 100, 5, 6, 7, 8, 9, 0)
    record = parse_inode(packed, 0, Superblock(epoch=1000, fixed_nsec=11))
    assert (record.mtime, record.mtime_ns, record.nlink, record.extended) == (1005, 11, 2, False)
