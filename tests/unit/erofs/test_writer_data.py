"""How contents are laid out: sharing, holes, inline tails, incompressible data, and files larger than 4 GiB."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from shed.entries import Entry
from shed.erofs import layout
from shed.erofs.checker import check
from shed.erofs.extents import Extent, Form
from shed.erofs.reader import Image
from shed.erofs.writer import Compression, WriteResult, WriterOptions, write_image
from support.erofs.trees import file, folder, noise, sparse, text, tree

GIB = 1 << 30


def write(path: Path, entries: list[Entry], compression: str = "lz4", cluster_size: int | None = None) -> WriteResult:
    with path.open("w+b") as out:
        return write_image(
            tree(entries), out, WriterOptions(compression=Compression.parse(compression), cluster_size=cluster_size)
        )


def extents(path: Path, name: bytes) -> list[Extent]:
    with Image.open(path) as image:
        return list(image.extents(image.lookup(name)))


@pytest.mark.parametrize("compression", ["lz4", "zstd", "none"])
@pytest.mark.parametrize("make", [text, noise])
def test_equal_files_are_stored_once(tmp_path: Path, compression: str, make: type) -> None:
    """Twenty copies of a file take hardly more than one, wherever they are in the tree and whatever else they carry."""
    data = make(500_000)
    one = write(tmp_path / "one", [file("0", data)], compression)
    copies = [file(f"{n % 3}/{n}", data, mode=0o600 + n, xattrs={b"user.n": b"%d" % n}) for n in range(20)]
    many = write(tmp_path / "many", copies, compression)
    assert many.data_bytes == 20 * len(data)
    assert many.size < one.size + 20 * 4096
    if compression == "none":
        with Image.open(tmp_path / "many") as image:
            assert len({image.lookup(b"%d/%d" % (n % 3, n)).union for n in range(20)}) == 1


def test_files_of_one_size_that_differ_are_kept_apart(tmp_path: Path) -> None:
    """A difference in the last byte is enough."""
    data = noise(100_000)
    write(tmp_path / "image", [file("a", data), file("b", data[:-1] + b"!"), file("c", data)])
    with Image.open(tmp_path / "image") as image:
        contents = [image.read(image.lookup(name), 99_999, 1) for name in (b"a", b"b", b"c")]
        assert contents == [data[-1:], b"!", data[-1:]]
        assert image.lookup(b"a").union == image.lookup(b"c").union != image.lookup(b"b").union


def test_incompressible_files_are_flat(tmp_path: Path) -> None:
    """What does not compress is not wrapped in indexes, and takes no more blocks than it has; its tail is inline."""
    result = write(tmp_path / "image", [file("noise", noise(1_000_100))])
    assert result.size <= 1_000_100 + 3 * 4096
    with Image.open(tmp_path / "image") as image:
        inode = image.lookup(b"noise")
        assert inode.layout == layout.LAYOUT_FLAT_INLINE
        assert inode.tail == 1_000_100 % 4096


def test_incompressible_clusters_in_a_compressed_file_are_plain(tmp_path: Path) -> None:
    """Clusters are judged one by one."""
    write(tmp_path / "image", [file("f", text(65536) + noise(65536) + text(65536))], cluster_size=65536)
    forms = [(extent.form, extent.length) for extent in extents(tmp_path / "image", b"f")]
    assert forms[0] == (Form.ENCODED, 65536)
    assert forms[-1] == (Form.ENCODED, 65536)
    assert {form for form, _ in forms[1:-1]} == {Form.VERBATIM}
    assert sum(length for _, length in forms[1:-1]) == 65536


def test_small_compressible_files_take_no_block(tmp_path: Path) -> None:
    """A hundred files that compress to a few hundred bytes each share blocks with their inodes."""
    result = write(tmp_path / "image", [file(f"{n:03d}", text(2000, n) + bytes(20_000)) for n in range(100)])
    assert result.size < 100 * 2500


@pytest.mark.parametrize("compression", ["lz4", "lz4hc", "zstd", "none"])
def test_a_hole_of_5_gib_is_cheap(tmp_path: Path, compression: str) -> None:
    """A file that is nothing but zeros takes no space, and not minutes of a processor."""
    start = time.process_time()
    result = write(tmp_path / "image", [sparse("hole", 5 * GIB + 1)], compression)
    assert result.size == 2 * 4096
    assert time.process_time() - start < 60
    check(tmp_path / "image", data=False)
    with Image.open(tmp_path / "image") as image:
        inode = image.lookup(b"hole")
        assert inode.size == 5 * GIB + 1
        assert image.read(inode, 5 * GIB - 10, 100) == bytes(11)


@pytest.mark.parametrize("compression", ["lz4", "zstd", "none"])
def test_data_behind_4_gib_is_found(tmp_path: Path, compression: str) -> None:
    """A file of more than 4 GiB with data at both ends and around 4 GiB: zeros between are stored once."""
    pieces = [(0, b"first"), (4 * GIB - 3, text(100_000)), (5 * GIB - 4, b"last")]
    result = write(tmp_path / "image", [sparse("big", 5 * GIB, *pieces)], compression)
    assert result.size < 12 << 20
    check(tmp_path / "image")
    with Image.open(tmp_path / "image") as image:
        inode = image.lookup(b"big")
        for at, data in pieces:
            assert image.read(inode, at, len(data)) == data
        assert image.read(inode, 3 * GIB, 4096) == bytes(4096)


def test_zero_clusters_share_one_block(tmp_path: Path) -> None:
    """In a file with data, all clusters of zeros are one block of the image."""
    write(
        tmp_path / "image", [sparse("f", 64 * 65536, (0, text(65536)), (40 * 65536, text(65536)))], cluster_size=65536
    )
    zeros = [extent for extent in extents(tmp_path / "image", b"f") if extent.start not in (0, 40 * 65536)]
    assert len(zeros) == 62
    assert len({extent.position for extent in zeros}) == 1
    assert {extent.stored for extent in zeros} == {4096}


def test_a_short_last_cluster_joins_the_one_before(tmp_path: Path) -> None:
    """Less than half a cluster at the end is compressed together with the cluster before it."""
    write(
        tmp_path / "image",
        [file("short", text(65536 * 2 + 20_000)), file("long", text(65536 * 2 + 40_000, 1))],
        cluster_size=65536,
    )
    assert [extent.length for extent in extents(tmp_path / "image", b"short")] == [65536, 65536 + 20_000]
    assert [extent.length for extent in extents(tmp_path / "image", b"long")] == [65536, 65536, 40_000]


def test_the_kernel_need_reserve_no_more_than_the_largest_cluster(tmp_path: Path) -> None:
    """The settings record holds the largest encoded cluster in use, since a kernel allocates that for each
    processor.
    """
    write(tmp_path / "image", [file("f", text(65536 * 4))], cluster_size=65536)
    largest = max(extent.stored for extent in extents(tmp_path / "image", b"f")) // 4096
    block = (tmp_path / "image").read_bytes()[:4096]
    assert layout.COMPR_CFG_SIZE.unpack_from(block, 1152) == (14,)
    assert layout.LZ4_CFG.unpack_from(block, 1154) == (65535, largest)


def test_zstd_window_covers_the_largest_cluster(tmp_path: Path) -> None:
    """The last cluster may be half as long again, so the window log is one more than the cluster's."""
    write(tmp_path / "image", [file("f", text(300_000))], "zstd", 65536)
    block = (tmp_path / "image").read_bytes()[:4096]
    assert layout.COMPR_CFG_SIZE.unpack_from(block, 1152) == (6,)
    assert layout.ZSTD_CFG.unpack_from(block, 1154) == (0, 17 - 10)


def test_directories_of_a_block_and_more_have_their_tail_inline(tmp_path: Path) -> None:
    """Ten thousand entries: whole blocks outside, the rest behind the inode."""
    write(tmp_path / "image", [folder("d"), *(file(f"d/{n:040d}") for n in range(10_000))])
    with Image.open(tmp_path / "image") as image:
        inode = image.lookup(b"d")
        assert inode.size > 10_000 * 52
        assert inode.layout == layout.LAYOUT_FLAT_INLINE
        assert len(list(image.iterdir(inode))) == 10_000
