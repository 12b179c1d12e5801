"""Images of mkfs.erofs 1.9, with every feature we read: our reader finds what is in the source folder, our checker
takes them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shed.entries import Entry
from shed.erofs import layout
from shed.erofs.checker import check
from shed.erofs.errors import ErofsError
from shed.erofs.reader import Image
from support.erofs import trees
from support.erofs.folders import make_folder
from support.erofs.images import Damaged
from support.erofs.mount import mounted
from support.erofs.records import differences, record_image
from support.erofs.tree_record import Record, record_folder
from support.erofs.utils import dump_erofs, fsck_erofs, mkfs_erofs

pytestmark = pytest.mark.root  # the source folder has devices and owners

OPTIONS: dict[str, list[str]] = {
    "plain": [],
    "plain-no-inline": ["-Enoinline_data"],
    "lz4": ["-zlz4"],
    "lz4-64k": ["-zlz4", "-C65536"],
    "lz4-1m": ["-zlz4", "-C1048576"],
    "lz4hc": ["-zlz4hc,level=3", "-C16384"],
    "lz4-legacy": ["-zlz4", "-Elegacy-compress"],
    "lz4-legacy-64k": ["-zlz4", "-Elegacy-compress", "-C65536"],
    "zstd": ["-zzstd"],
    "zstd-128k": ["-zzstd,level=5", "-C131072"],
    "zstd-legacy": ["-zzstd", "-Elegacy-compress", "-C32768"],
    "deflate": ["-zdeflate", "-C32768"],
    "two-algorithms": ["-zlz4:zstd", "-C65536"],
    "tails": ["-zlz4", "-Eztailpacking"],
    "tails-64k": ["-zlz4hc", "-Eztailpacking", "-C65536"],
    "tails-zstd": ["-zzstd", "-Eztailpacking", "-C65536"],
    "tails-legacy": ["-zlz4", "-Eztailpacking,legacy-compress", "-C65536"],
    "compact": ["-zlz4", "-C65536", "-Eforce-inode-compact", "-T1600000000"],
    "extended": ["-zlz4", "-C65536", "-Eforce-inode-extended"],
    "chunks": ["--chunksize=4096"],
    "chunks-64k": ["--chunksize=65536"],
    "chunk-indexes": ["--chunksize=16384", "-Eforce-chunk-indexes"],
    "fragments": ["-zlz4", "-Efragments"],
    "fragments-64k": ["-zlz4", "-Efragments", "-C65536"],
    "fragments-tails": ["-zlz4", "-Efragments,ztailpacking", "-C32768"],
    "all-fragments": ["-zzstd", "-Eall-fragments"],
    "dedupe": ["-zlz4", "-Ededupe", "-C16384"],
    "dedupe-zstd": ["-zzstd", "-Ededupe,fragments", "-C65536"],
    "directories": ["-zlz4", "--zD=1", "-C65536"],
    "xattr-prefix": ["-zlz4", "--xattr-prefix=user.long.prefix."],
    "xattr-inline": ["-x0"],
    "xattr-shared": ["-x1"],
}


def source_entries() -> list[Entry]:
    """Files of every size and mix, names, links, devices, holes, and xattrs, some of them alike."""
    parts = {
        "sizes": trees.sizes(16384),
        "mixed": trees.mixed(8192),
        "holes": trees.holes(16384),
        "links": trees.links(0),
        "devices": [
            entry for entry in trees.devices(0) if entry.path != b"char/0-0"
        ],  # mkfs.erofs takes it for a whiteout
        "twins": trees.twins(16384),
        "names": [entry for entry in trees.names(0) if not entry.path.startswith(b"fill")],
    }
    entries = [trees.folder("")]
    for name, part in parts.items():
        for entry in part:
            entry.path = name.encode() + b"/" + entry.path if entry.path else name.encode()
            if entry.link is not None:
                entry.link = name.encode() + b"/" + entry.link
            entries.append(entry)
    alike = {
        b"user.long.prefix.same": b"same",
        b"security.capability": bytes.fromhex("0100000200200000000000000000000000000000"),
    }
    entries.append(trees.folder("xattrs", xattrs=alike))
    own = {number: {b"user.own": b"%d" % number, b"trusted.t": b"t"} for number in range(20)}
    entries += [
        trees.file(f"xattrs/{number}", b"x" * number, xattrs={**alike, **xattrs}) for number, xattrs in own.items()
    ]
    return entries


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(source_entries(), tmp_path_factory.mktemp("source") / "folder")


@pytest.fixture(scope="module")
def wanted(source: Path) -> dict[str, Record]:
    return record_folder(os.fsencode(source))


@pytest.mark.parametrize(
    "options", [pytest.param(name, marks=pytest.mark.slow if name == "dedupe" else ()) for name in OPTIONS]
)
def test_our_reader_finds_what_is_in_the_source(
    source: Path, wanted: dict[str, Record], tmp_path: Path, options: str
) -> None:
    """Images of mkfs.erofs, with each of its options."""
    image = tmp_path / "image"
    mkfs_erofs(image, source, "--quiet", *OPTIONS[options])
    report = check(image, data=True)
    assert (
        f"count: {report.inodes}" in " ".join(dump_erofs(image, "-s").split()) or "fragments/dedupe" in report.features
    )
    with Image.open(image) as opened:
        ignore = ["mtime"] if options == "compact" else []
        assert differences(record_image(opened), wanted, ignore=ignore) == []


@pytest.mark.parametrize(
    ("options", "feature"), [(["-E48bit"], "48bit"), (["-m4096", "--MZ=i"], "metabox")], ids=["48bit", "metabox"]
)
def test_features_that_are_not_supported_are_named(
    source: Path, tmp_path: Path, options: list[str], feature: str
) -> None:
    """The checker refuses them by rule, and says which one it is."""
    image = tmp_path / "image"
    mkfs_erofs(image, source / "xattrs", "--quiet", "-zlz4", *options)
    with pytest.raises(ErofsError, match=feature) as caught:
        check(image)
    assert caught.value.rule == "unsupported-feature"


def test_lzma_is_refused_by_name(source: Path, tmp_path: Path) -> None:
    """The checker does not take it for damage."""
    image = tmp_path / "image"
    mkfs_erofs(image, source / "mixed", "--quiet", "-zlzma", "-C65536")
    with pytest.raises(ErofsError, match="lzma") as caught:
        check(image, data=True)
    assert caught.value.rule == "unsupported-feature"


@pytest.mark.parametrize("layout_option", [[], ["-Elegacy-compress"]], ids=["compact", "full"])
def test_the_bug_of_erofs_utils_1_7_1(source: Path, tmp_path: Path, layout_option: list[str]) -> None:
    """A kernel mounts it and cannot read it, fsck.erofs takes it; our checker refuses it and names an inode."""
    valid = tmp_path / "valid"
    mkfs_erofs(valid, source / "mixed", "--quiet", "-zlz4", "-C65536", *layout_option)
    check(valid)
    damaged = Damaged(valid, tmp_path / "damaged")
    damaged.superblock(
        feature_incompat=damaged.description().feature_incompat & ~layout.INCOMPAT_BIG_PCLUSTER, compression=0
    )
    image = damaged.save()
    with pytest.raises(ErofsError) as caught:
        check(image)
    assert caught.value.rule == "big-pcluster-undeclared"
    assert caught.value.nid is not None
    fsck_erofs(image)
    with mounted(image, tmp_path / "mount") as folder:
        path = caught.value.message.partition("(")[2].partition(")")[0]
        with pytest.raises(OSError, match=r"117|cleaning"):
            (folder / path.lstrip("/")).read_bytes()
