"""What the kernel of this machine says of our images: every file is read, since a mount alone proves nothing."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from shed.erofs.writer import Compression, WriterOptions, write_image
from support.erofs.mount import differences, mounted
from support.erofs.trees import TREES

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")]


ALL_TREES = [(name, "lz4") for name in TREES]
TREES_OF_DATA = [
    (name, compression) for compression in ("zstd", "none") for name in ("sizes", "mixed", "holes", "twins", "xattrs")
]


@pytest.mark.parametrize(("name", "compression"), ALL_TREES + TREES_OF_DATA)
def test_kernel_sees_what_went_in(tmp_path: Path, name: str, compression: str) -> None:
    """Every generated tree comes out of a mount as it went in."""
    options = WriterOptions(compression=Compression.parse(compression))
    entries = TREES[name](options.compression.default_cluster_size)
    image = tmp_path / "image"
    with image.open("w+b") as out:
        write_image(entries, out, options)
    with mounted(image, tmp_path / "mnt") as root:
        assert differences(entries, root) == []


@pytest.mark.parametrize(
    ("compression", "cluster"),
    [("lz4", 4096), ("lz4", 8192), ("lz4", 524288), ("lz4hc:1", 32768), ("zstd:1", 8192), ("zstd:1", 524288)],
)
def test_kernel_reads_every_cluster_size(tmp_path: Path, compression: str, cluster: int) -> None:
    """Sizes around the boundaries are read back whatever the cluster size."""
    entries = TREES["sizes"](cluster)
    image = tmp_path / "image"
    with image.open("w+b") as out:
        write_image(entries, out, WriterOptions(compression=Compression.parse(compression), cluster_size=cluster))
    with mounted(image, tmp_path / "mnt") as root:
        assert differences(entries, root) == []


@pytest.mark.parametrize("name", ["mixed", "holes", "sizes"])
def test_kernel_reads_single_pages_in_any_order(tmp_path: Path, name: str) -> None:
    """A page in the middle of a cluster is decompressed as well as a whole file is."""
    entries = TREES[name](65536)
    image = tmp_path / "image"
    with image.open("w+b") as out:
        write_image(entries, out)
    chance = random.Random(1)
    files = [entry for entry in entries if entry.content is not None]
    with mounted(image, tmp_path / "mnt") as root:
        for entry in chance.choices(files, k=500):
            offset = chance.randrange(entry.size)
            length = chance.choice([1, 100, 4096, 5000, 70000])
            assert entry.content is not None
            with open(os.fsencode(root) + b"/" + entry.path, "rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
                assert os.pread(file.fileno(), length, offset) == entry.content.pread(length, offset), (
                    entry.path,
                    offset,
                    length,
                )
