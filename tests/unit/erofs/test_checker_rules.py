"""The checker takes what is valid and names inode and rule of what is not: one change to a valid image for each
rule.
"""

from __future__ import annotations

import itertools
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from shed.erofs import checker, layout
from shed.erofs.checker import check
from shed.erofs.errors import ErofsError
from shed.erofs.inode import InodeRecord
from shed.errors import NotFoundError
from support.erofs.images import Damaged, make_image, sample_entries
from support.erofs.trees import file, folder, noise, text

SOURCES = (
    "checker",
    "clusters",
    "compression",
    "directories",
    "extents",
    "image_file",
    "inode",
    "reader",
    "superblock",
    "xattrs",
)
BLOCK = layout.BLOCK_SIZE


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image(tmp_path_factory.mktemp("sample") / "image", sample_entries())


@pytest.fixture
def damaged(sample: Path, tmp_path: Path) -> Damaged:
    return Damaged(sample, tmp_path / "damaged")


@pytest.mark.parametrize("compression", ["lz4", "lz4hc", "zstd", "none"])
def test_a_valid_image_is_described(tmp_path: Path, compression: str) -> None:
    """The report counts what is in the image."""
    image = make_image(tmp_path / "image", sample_entries(), compression)
    report = check(image, data=True)
    assert report.size == image.stat().st_size
    assert report.kinds == {"directory": 3, "file": 51, "character device": 1, "symlink": 3, "fifo": 1}
    assert (report.inodes, report.names, report.xattrs) == (59, 59, 3)
    assert (report.encoded > 0) == (compression != "none")


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    """It is not called damaged."""
    with pytest.raises(NotFoundError):
        check(tmp_path / "nothing")


def refused(damaged: Damaged, rule: str, nid: int | None, *, sealed: bool = True, data: bool = False) -> ErofsError:
    with pytest.raises(ErofsError) as caught:
        check(damaged.save(sealed=sealed), data=data)
    assert (caught.value.rule, caught.value.nid) == (rule, nid)
    return caught.value


def test_big_clusters_that_the_superblock_does_not_declare_are_refused_with_the_inode(damaged: Damaged) -> None:
    """The bug of erofs-utils 1.7.1: mounts, passes fsck, and fails with EUCLEAN when it is read."""
    features = damaged.description().feature_incompat
    assert features & layout.INCOMPAT_BIG_PCLUSTER
    damaged.superblock(feature_incompat=features & ~layout.INCOMPAT_BIG_PCLUSTER, compression=0)
    error = refused(damaged, "big-pcluster-undeclared", damaged.inode("large").nid)
    assert f"inode {error.nid} (/large)" in error.message
    assert error.hint


Superblock = dict[str, int]


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"magic": 0x1234}, "magic"),
        ({"blkszbits": 9}, "block-size"),
        ({"blkszbits": 14}, "block-size"),
        ({"dirblkbits": 1}, "directory-block-size"),
        ({"sb_extslots": 255}, "superblock-size"),
        ({"blocks": 1 << 20}, "truncated"),
        ({"feature_incompat": 1 << 20}, "unknown-feature"),
        ({"feature_incompat": layout.INCOMPAT_48BIT}, "unsupported-feature"),
        ({"feature_incompat": layout.INCOMPAT_METABOX}, "unsupported-feature"),
        ({"extra_devices": 1}, "unsupported-feature"),
        ({"compression": 1 << 9}, "unknown-algorithm"),
        ({"compression": 0x3}, "compression-settings"),
        (
            {
                "feature_incompat": layout.INCOMPAT_XATTR_PREFIXES,
                "xattr_prefix_count": 1,
                "xattr_prefix_start": 1 << 30,
            },
            "xattr-prefixes",
        ),
    ],
)
def test_superblocks_that_cannot_be_right(damaged: Damaged, fields: Superblock, rule: str) -> None:
    """Each wrong field is refused by its rule."""
    if "feature_incompat" in fields:
        fields = {**fields, "feature_incompat": fields["feature_incompat"] | damaged.description().feature_incompat}
    damaged.superblock(**fields)
    refused(damaged, rule, None)


def test_a_changed_superblock_with_the_old_checksum(damaged: Damaged) -> None:
    """The checksum gives it away."""
    damaged.put(layout.SUPER_OFFSET + 100, b"\1")
    refused(damaged, "checksum", None, sealed=False)


@pytest.mark.parametrize("size", [0, 100, BLOCK - 1])
def test_a_file_too_short_to_be_an_image(damaged: Damaged, size: int) -> None:
    """It is truncated, and nothing is read beyond its end."""
    del damaged.bytes[size:]
    refused(damaged, "truncated", None, sealed=False)


def test_an_image_without_its_end(damaged: Damaged) -> None:
    """The superblock announces more blocks than there are."""
    del damaged.bytes[len(damaged.bytes) // 2 :]
    refused(damaged, "truncated", None)


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    """It is refused by name."""
    with pytest.raises(ErofsError, match="folder"):
        check(tmp_path)


# fields of the 64-byte inode: offset and size
FORMAT, ICOUNT, MODE, SIZE, UNION, NLINK = (0, 2), (2, 2), (4, 2), (8, 8), (16, 4), (44, 4)
EXTENDED = layout.FORMAT_EXTENDED


@pytest.mark.parametrize(
    ("path", "where", "value", "rule"),
    [
        ("small", FORMAT, 0x8000 | EXTENDED, "inode-format"),
        ("small", FORMAT, 5 << layout.FORMAT_LAYOUT_SHIFT | EXTENDED, "inode-format"),
        ("small", FORMAT, layout.FORMAT_NLINK_1 | EXTENDED, "inode-format"),
        ("small", MODE, 0o644, "file-type"),
        ("small", SIZE, 1 << 63, "inode-size"),
        ("small", SIZE, BLOCK - 1, "inline-crosses-block"),
        ("small", SIZE, 1 << 40, "data-outside"),
        ("noise", UNION, 1 << 30, "data-outside"),
        ("small", ICOUNT, 0xFFFF, "xattr-outside"),
        ("large", SIZE, 1 << 40, "index-outside"),
        ("large", NLINK, 3, "nlink"),
        ("small", NLINK, 0, "nlink"),
        ("folder", NLINK, 7, "nlink"),
        ("zeros", UNION, 0x8000, "chunk-format"),
        ("zeros", SIZE, 1 << 62, "index-outside"),
        ("link", SIZE, 0, "symlink-target"),
    ],
)
def test_inodes_that_cannot_be_right(
    damaged: Damaged, path: str, where: tuple[int, int], value: int, rule: str
) -> None:
    """Each wrong field is refused by its rule, and the inode is named."""
    inode = damaged.inode(path)
    damaged.put_number(inode.offset + where[0], value, where[1])
    refused(damaged, rule, inode.nid)


def test_chunks_that_the_superblock_does_not_declare(damaged: Damaged) -> None:
    """Kernels without the feature would misread them."""
    damaged.superblock(feature_incompat=damaged.description().feature_incompat & ~layout.INCOMPAT_CHUNKED_FILE)
    refused(damaged, "chunked-file-undeclared", damaged.inode("zeros").nid)


def test_a_chunk_outside(damaged: Damaged) -> None:
    """A chunk beyond the image's end is refused."""
    inode = damaged.inode("zeros")
    damaged.put_number(inode.body, 1 << 30, 4)
    refused(damaged, "data-outside", inode.nid)


def test_the_root_must_be_a_directory(damaged: Damaged) -> None:
    """A file as the root is refused."""
    damaged.superblock(root_nid=damaged.inode("small").nid)
    refused(damaged, "file-type", damaged.inode("small").nid)


def test_a_symlink_with_a_zero_byte(damaged: Damaged) -> None:
    """The kernel would cut its target there."""
    damaged.put(damaged.inode("link").body + 2, b"\0")
    refused(damaged, "symlink-target", damaged.inode("link").nid)


# directories

Change = Callable[[Damaged, int], None]


def entry_at(damaged: Damaged, path: str, name: bytes) -> int:
    """Return where the record of `name` is in the small directory at `path`."""
    inode = damaged.inode(path)
    assert inode.tail == inode.size
    names = damaged.number(inode.body + 8, 2)
    starts = [damaged.number(inode.body + at + 8, 2) for at in range(0, names, layout.DIRENT.size)]
    for number, (start, end) in enumerate(itertools.pairwise([*starts, inode.size])):
        if damaged.bytes[inode.body + start : inode.body + end] == name:
            return inode.body + number * layout.DIRENT.size
    raise AssertionError(name)


@pytest.mark.parametrize(
    ("field", "size", "value", "rule", "blamed"),
    [
        (0, 8, 1 << 50, "inode-outside", 1 << 50),
        (10, 1, layout.FT_SYMLINK, "dirent-type", None),
        (10, 1, 0, "dirent-type", None),
        (10, 1, 99, "dirent-type", None),
        (8, 2, 5000, "dirent-offset", None),
        (8, 2, 0, "dirent-offset", None),
    ],
)
def test_directory_entries_that_cannot_be_right(
    damaged: Damaged, field: int, size: int, value: int, rule: str, blamed: int | None
) -> None:
    """Each wrong field is refused by its rule, and the inode to blame is named."""
    damaged.put_number(entry_at(damaged, "folder", b"inner") + field, value, size)
    refused(damaged, rule, damaged.inode("folder").nid if blamed is None else blamed)


@pytest.mark.parametrize(
    ("name", "rule"), [(b"in/er", "dirent-name"), (b"in\0er", "dirent-name"), (b"!nner", "dirent-order")]
)
def test_names_that_cannot_be_right(damaged: Damaged, name: bytes, rule: str) -> None:
    """Empty ones, ones with slashes or zeros, and ones out of order."""
    inode = damaged.inode("folder")
    if name == b"in\0er":  # a zero in the last name of a block would end it: this one is not the last
        inode = damaged.inode("")
        at = damaged.bytes.index(b"folder", inode.body)
        damaged.put(at, b"fol\0er")
    else:
        damaged.put(damaged.bytes.index(b"inner", inode.body), name)
    refused(damaged, rule, inode.nid)


@pytest.mark.parametrize("dot", [b".", b".."])
def test_dots_that_lead_elsewhere(damaged: Damaged, dot: bytes) -> None:
    """Both must mean the folder itself and its parent."""
    damaged.put_number(entry_at(damaged, "folder", dot), damaged.inode("many").nid, 8)
    refused(damaged, "dirent-dots", damaged.inode("folder").nid)


def test_a_directory_without_dots(damaged: Damaged) -> None:
    """Both must be there."""
    inode = damaged.inode("folder")
    damaged.put(damaged.bytes.index(b"...inner", inode.body), b".,-inner")
    damaged.put(entry_at(damaged, "folder", b",-"), bytes(damaged.bytes[entry_at(damaged, "", b"pipe") :][:8]))
    damaged.put(entry_at(damaged, "folder", b",-") + 10, bytes([layout.FT_FIFO]))
    refused(damaged, "dirent-order", inode.nid)


@pytest.mark.parametrize("target", ["", "many"])
def test_a_directory_with_two_names(damaged: Damaged, target: str) -> None:
    """One that is its own ancestor, and one that is in two places."""
    at = entry_at(damaged, "folder", b"inner")
    nid = damaged.inode(target).nid
    damaged.put_number(at, nid, 8)
    damaged.put_number(at + 10, layout.FT_DIR, 1)
    refused(damaged, "directory-loop", nid)


# xattrs


@pytest.mark.parametrize(
    ("offset", "data", "rule"),
    [
        (1, b"\x63", "xattr-index"),
        (1, b"\x80", "xattr-prefixes-undeclared"),
        (2, b"\xff\xff", "xattr-outside"),
        (5, b"\0", "xattr-name"),
    ],
)
def test_xattrs_that_cannot_be_right(damaged: Damaged, offset: int, data: bytes, rule: str) -> None:
    """Each wrong field is refused by its rule."""
    inode = damaged.inode("attributes")
    start = inode.offset + layout.EXTENDED_INODE_SIZE + layout.XATTR_IBODY_HEADER.size
    damaged.put(start + offset, data)
    refused(damaged, rule, inode.nid)


def test_shared_xattrs_that_do_not_fit(damaged: Damaged) -> None:
    """More of them than the inode has room for."""
    inode = damaged.inode("attributes")
    damaged.put(inode.offset + layout.EXTENDED_INODE_SIZE + 4, b"\xff")
    refused(damaged, "xattr-outside", inode.nid)


def test_an_xattr_that_occurs_twice(damaged: Damaged) -> None:
    """Readers would not agree on its value."""
    inode = damaged.inode("attributes")
    damaged.put(damaged.bytes.index(b"two", inode.offset), b"one")
    refused(damaged, "xattr-duplicate", inode.nid)


# compressed data


def header_at(damaged: Damaged, path: str) -> int:
    return layout.map_header_start(damaged.inode(path).body)


def index_at(damaged: Damaged, path: str, number: int) -> int:
    inode = damaged.inode(path)
    assert inode.layout == layout.LAYOUT_COMPRESSED_FULL
    return layout.full_index_start(inode.body) + number * layout.LCLUSTER_INDEX.size


@pytest.mark.parametrize(
    ("offset", "data", "rule"),
    [
        (4, b"\0\x80", "map-header"),
        (4, bytes([layout.ADVISE_BIG_PCLUSTER_1 | layout.ADVISE_EXTENTS]), "unsupported-feature"),
        (4, bytes([layout.ADVISE_BIG_PCLUSTER_1 | layout.ADVISE_INLINE_PCLUSTER]), "ztailpacking-undeclared"),
        (4, bytes([layout.ADVISE_BIG_PCLUSTER_1 | layout.ADVISE_FRAGMENT_PCLUSTER]), "fragments-undeclared"),
        (6, bytes([layout.ALGORITHM_ZSTD]), "algorithm-undeclared"),
        (6, b"\x0e", "unknown-algorithm"),
        (7, b"\x80", "fragments-undeclared"),
        (7, b"\x10", "map-header"),
    ],
)
def test_map_headers_that_cannot_be_right(damaged: Damaged, offset: int, data: bytes, rule: str) -> None:
    """Each wrong field is refused by its rule."""
    damaged.put(header_at(damaged, "large") + offset, data)
    refused(damaged, rule, damaged.inode("large").nid)


HEAD1, NONHEAD, HEAD2 = layout.LCLUSTER_HEAD1, layout.LCLUSTER_NONHEAD, layout.LCLUSTER_HEAD2


@pytest.mark.parametrize(
    ("number", "index", "rule"),
    [
        (0, (NONHEAD, 0, 1), "index-head"),
        (0, (HEAD1, 5, 1), "index-offset"),
        (0, (HEAD1, 5000, 1), "index-offset"),
        (0, (HEAD1, 0, 1 << 30), "data-outside"),
        (0, (HEAD2, 0, 1), "compr-head2-undeclared"),
        (1, (NONHEAD, 0, 1), "index-size"),
        (1, (NONHEAD, 0, 2), "index-distance"),
        (2, (NONHEAD, 0, 0), "index-distance"),
        (2, (NONHEAD, 0, 9), "index-distance"),
        (2, (NONHEAD, 0, layout.LI_D0_CBLKCNT | 3), "index-size"),
    ],
)
def test_indexes_that_cannot_be_right(damaged: Damaged, number: int, index: tuple[int, int, int], rule: str) -> None:
    """Each wrong index of a cluster is refused by its rule."""
    damaged.put(index_at(damaged, "large", number), layout.LCLUSTER_INDEX.pack(*index))
    refused(damaged, rule, damaged.inode("large").nid)


def test_a_cluster_larger_than_kernels_take(tmp_path: Path) -> None:
    """The limit of kernels holds, whatever the index says."""
    valid = make_image(tmp_path / "valid", [folder(""), file("noise", noise(2 << 20)), file("text", text(300_000))])
    damaged = Damaged(valid, tmp_path / "damaged")
    head, following = index_at(damaged, "text", 0), index_at(damaged, "text", 1)
    damaged.put(head, layout.LCLUSTER_INDEX.pack(HEAD1, 0, 1))
    damaged.put(following, layout.LCLUSTER_INDEX.pack(NONHEAD, 0, layout.LI_D0_CBLKCNT | 300))
    refused(damaged, "pcluster-size", damaged.inode("text").nid)


SETTINGS = layout.SUPER_OFFSET + layout.SUPERBLOCK.size + layout.COMPR_CFG_SIZE.size


def test_clusters_larger_than_the_superblock_declares(damaged: Damaged) -> None:
    """Kernels make room for what is declared; reading more fails."""
    distance, blocks = layout.LZ4_CFG.unpack_from(damaged.bytes, SETTINGS)
    assert blocks > 2
    damaged.put(SETTINGS, layout.LZ4_CFG.pack(distance, 2))
    refused(damaged, "pcluster-undeclared", damaged.inode("large").nid)


@pytest.mark.parametrize(("log", "rule"), [(0, "compressed-data"), (11, "compression-settings")])
def test_a_zstd_window_other_than_declared_or_too_large(tmp_path: Path, log: int, rule: str) -> None:
    """It would decide how much memory the kernel takes."""
    damaged = Damaged(make_image(tmp_path / "valid", sample_entries(), "zstd"), tmp_path / "damaged")
    damaged.put(SETTINGS, layout.ZSTD_CFG.pack(0, log))
    refused(damaged, rule, damaged.inode("large").nid if rule == "compressed-data" else None, data=True)


def test_data_that_does_not_decode_is_found_when_asked_for(damaged: Damaged) -> None:
    """Only with `data`, because it takes reading all of it."""
    inode = damaged.inode("large")
    head = damaged.number(index_at(damaged, "large", 0) + 4, 4)
    damaged.put(head * BLOCK, bytes(BLOCK))
    check(damaged.save())
    refused(damaged, "compressed-data", inode.nid, data=True)


def test_inodes_that_lie_in_each_other(damaged: Damaged) -> None:
    """Their indexes would be walked over and over: a small file would take hours."""
    start = len(damaged.bytes)
    blocks = 200
    damaged.bytes += bytes(blocks * BLOCK)
    description = damaged.description()
    damaged.superblock(blocks=description.blocks + blocks)
    first = (start - description.meta_blkaddr * BLOCK) // layout.NID_SIZE
    entries = blocks * BLOCK // 4 - 100
    form = layout.FORMAT_EXTENDED | layout.LAYOUT_CHUNK_BASED << layout.FORMAT_LAYOUT_SHIFT
    for number, name in enumerate((b"zeros", b"small", b"noise", b"large")):
        record = InodeRecord(form, 0, stat.S_IFREG | 0o644, entries * BLOCK, 0, 0, 0, 0, 0, 0, 1)
        damaged.put(start + number * layout.EXTENDED_INODE_SIZE, record.pack_extended())
        damaged.put_number(entry_at(damaged, "", name), first + 2 * number, 8)
    refused(damaged, "metadata-overlap", first + 4)


def test_the_list_of_rules_is_complete() -> None:
    """Every rule that is raised is in the checker's documentation, and nothing else is."""
    folder_ = Path(checker.__file__).parent
    raised = set()
    for name in SOURCES:
        text = (folder_ / f"{name}.py").read_text()
        raised.update(re.findall(r'rule="([a-z-]+[a-z0-9-]*)"', text))
        features = re.findall(r'_require\(\s*description,\s*layout\.\w+,\s*"([a-z-]+)"', text)
        raised.update(f"{feature}-undeclared" for feature in features)
    raised -= {"not-a-directory", "not-a-symlink", "path-too-long"}  # of what a caller asks for, not of the image
    raised -= {"xattr-too-large"}  # of a tree to be written
    assert checker.__doc__
    table = checker.__doc__.split("====\n", 1)[1]
    documented = {
        word.strip(",") for line in table.splitlines() for word in line[20:].split() if not word.startswith("=")
    }
    assert documented == raised
