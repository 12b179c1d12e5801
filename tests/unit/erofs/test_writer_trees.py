"""Every generated tree, written, judged by the checker, read back by our reader and compared with what went in."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from shed.entries import Entry
from shed.erofs import layout
from shed.erofs.checker import check
from shed.erofs.superblock import Superblock, superblock_checksum
from shed.erofs.verifier import verify_contents
from shed.erofs.writer import Compression, WriteResult, WriterOptions, write_image
from support.erofs.trees import EPOCH, TREES, file, folder, noise, text, tree


def write(path: Path, entries: list[Entry], compression: str = "lz4", **options: int) -> WriteResult:
    with path.open("w+b") as out:
        return write_image(entries, out, WriterOptions(compression=Compression.parse(compression), **options))  # type: ignore[arg-type]


ALL_TREES = [(name, compression) for compression in ("lz4", "none") for name in TREES]
TREES_OF_DATA = [
    (name, compression) for compression in ("lz4hc:2", "zstd:1") for name in ("sizes", "mixed", "holes", "twins")
]


@pytest.mark.parametrize(("name", "compression"), ALL_TREES + TREES_OF_DATA)
def test_tree_is_read_back(tmp_path: Path, name: str, compression: str) -> None:
    """The checker passes it, and every name, attribute and byte is what went in."""
    entries = TREES[name](16384)
    result = write(tmp_path / "image", entries, compression, cluster_size=16384)
    report = check(tmp_path / "image", data=True)
    verify_contents(tmp_path / "image", entries)
    assert result.inodes == report.inodes == sum(entry.link is None for entry in entries)
    assert result.size == (tmp_path / "image").stat().st_size
    assert result.data_bytes == sum(entry.size for entry in entries if entry.link is None)


@pytest.mark.parametrize("compression", ["lz4", "zstd", "none"])
@pytest.mark.parametrize("name", ["mixed", "holes", "sizes", "twins"])
def test_bytes_do_not_depend_on_the_number_of_threads(tmp_path: Path, name: str, compression: str) -> None:
    """One, two and seven threads write the same image."""
    entries = TREES[name](32768)
    for threads in (1, 2, 7):
        write(tmp_path / str(threads), entries, compression, cluster_size=32768, threads=threads)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes() == (tmp_path / "7").read_bytes()


@pytest.mark.parametrize(
    ("compression", "digest"),
    [
        ("none", "f65cb823db9a24d943b4617cecb29f64bba3d7746040ccf0af4b1cb3a147b5fc"),
        ("lz4", "88e03015d05eef59d6e74e25db8b6dea47925d8622e2191528877cb36a725353"),
        ("lz4hc", "34dca0733cd16b6c7069045abb05ab2b4fa6af49486a619e6a1a62ebdeb81ffb"),
        ("zstd", "2531e01494eee776f6977d697b16e99b1bd086f58bb7b4913920f7d0475bbe8a"),
    ],
)
def test_bytes_are_the_ones_of_this_release(tmp_path: Path, compression: str, digest: str) -> None:
    """The pinned digests: whoever changes a byte of what the writer makes changes them knowingly, and the version with
    them.
    """
    entries = tree([*TREES["metadata"](65536), *TREES["links"](65536), *TREES["names"](65536)][1:])
    entries = tree(
        [
            *entries,
            file("text", text(1_000_000)),
            file("noise", noise(300_000)),
            file("twin", text(1_000_000)),
            file("zero", bytes(99_999)),
        ]
    )
    write(tmp_path / "image", entries, compression)
    assert hashlib.sha256((tmp_path / "image").read_bytes()).hexdigest() == digest


def test_uuid_tells_trees_apart(tmp_path: Path) -> None:
    """It changes with any byte of content, any attribute and the compression, and is a valid version 8 UUID."""
    base = [folder(""), file("a", text(100_000)), file("b", b"small")]
    variants: list[tuple[str, list[Entry]]] = [("lz4", base), ("zstd", base)]
    variants.append(("lz4", [folder(""), file("a", text(99_999) + b"!"), file("b", b"small")]))
    variants.append(("lz4", [folder(""), file("a", text(100_000)), file("b", b"smalL")]))
    variants.append(("lz4", [folder(""), file("a", text(100_000)), file("b", b"small", mode=0o600)]))
    variants.append(("lz4", [folder(""), file("a", text(100_000)), file("c", b"small")]))
    found = {write(tmp_path / "image", entries, compression).uuid for compression, entries in variants}
    assert len(found) == len(variants)
    assert all(text[14] == "8" and text[19] in "89ab" for text in found)


def test_superblock_says_what_the_image_needs(tmp_path: Path) -> None:
    """Features are declared when an inode uses them, and only then; the checksum is right; no time of the host is in
    it.
    """
    cases = [
        ("none", [file("a", text(5000))], 0),
        ("none", [file("a", bytes(5000))], layout.INCOMPAT_CHUNKED_FILE),
        ("lz4", [file("a", noise(5000))], layout.INCOMPAT_LZ4_0PADDING | layout.INCOMPAT_BIG_PCLUSTER),
        (
            "lz4",
            [file("a", text(5000))],
            layout.INCOMPAT_LZ4_0PADDING | layout.INCOMPAT_BIG_PCLUSTER | layout.INCOMPAT_ZTAILPACKING,
        ),
        ("zstd", [file("a", text(500_000))], layout.INCOMPAT_LZ4_0PADDING | layout.INCOMPAT_BIG_PCLUSTER),
    ]
    for compression, entries, features in cases:
        path = tmp_path / "image"
        result = write(path, tree(entries), compression)
        block = path.read_bytes()[:4096]
        superblock = Superblock.parse(block, layout.SUPER_OFFSET)
        assert superblock.magic == 0xE0F5E1E2
        assert superblock.feature_incompat == features
        assert superblock.feature_compat == layout.COMPAT_SB_CHKSUM | layout.COMPAT_MTIME
        assert superblock.checksum == superblock_checksum(block)
        assert superblock.blocks * 4096 == result.size
        assert superblock.compression == {"none": 0, "lz4": 1, "zstd": 8}[compression]
        assert 0 < superblock.root_nid < layout.ROOT_NID_LIMIT
        assert superblock.epoch == EPOCH
        assert superblock.build_time == 0


def test_result_names_what_decides_the_bytes(tmp_path: Path) -> None:
    """The writer's name and version, and those of the library that compresses."""
    from importlib.metadata import version

    from shed.version import VERSION

    written = {
        compression: write(tmp_path / "image", [], compression).writer
        for compression in ("none", "lz4", "lz4hc", "zstd")
    }
    assert written["none"] == f"shed-erofs/{VERSION}"
    assert written["lz4"] == written["lz4hc"] == f"shed-erofs/{VERSION} lz4/{version('lz4')}"
    assert written["zstd"] == f"shed-erofs/{VERSION} zstandard/{version('zstandard')}"


def test_progress_adds_up(tmp_path: Path) -> None:
    """What is reported sums up to the bytes of all files."""
    seen: list[int] = []
    with (tmp_path / "image").open("w+b") as out:
        result = write_image(TREES["sizes"](65536), out, WriterOptions(on_progress=seen.append))
    assert sum(seen) == result.data_bytes
    assert len(seen) > 10
