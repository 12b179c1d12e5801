"""Images of our writer hold exactly what was put in: so say our reader, a kernel that reads every file, and erofs-utils
1.9.

The fourth way, inside a booted guest, is in tests/vm, with the same trees and records.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shed.erofs.checker import check
from shed.erofs.reader import Image
from shed.erofs.writer import Compression, WriterOptions, write_image
from support.erofs.mount import mounted
from support.erofs.records import differences, record_entries, record_image
from support.erofs.tree_record import Record, record_folder
from support.erofs.trees import TREES
from support.erofs.utils import fsck_erofs

WRITERS = {
    "lz4": ("lz4", None),
    "lz4-4k": ("lz4", 4096),
    "lz4hc-128k": ("lz4hc:9", 128 << 10),
    "zstd": ("zstd:3", None),
    "none": ("none", None),
}


@dataclass
class Case:
    """An image, and what must be in it."""

    image: Path
    wanted: dict[str, Record]


@pytest.fixture(scope="module", params=[(tree, writer) for tree in TREES for writer in WRITERS], ids="-".join)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    tree, writer = request.param
    compression, cluster = WRITERS[writer]
    entries = TREES[tree](cluster or 64 << 10)
    image = tmp_path_factory.mktemp("four") / "image"
    with image.open("w+b") as out:
        write_image(entries, out, WriterOptions(compression=Compression.parse(compression), cluster_size=cluster))
    yield Case(image, record_entries(entries))
    image.unlink()


def test_our_reader(case: Case) -> None:
    """The checker passes the image, and our reader finds what the source holds."""
    check(case.image, data=True)
    with Image.open(case.image) as image:
        assert differences(record_image(image), case.wanted) == []


@pytest.mark.root
def test_a_kernel_mount(case: Case, tmp_path: Path) -> None:
    """The kernel shows what the source holds."""
    with mounted(case.image, tmp_path / "mount") as folder:
        assert differences(record_folder(os.fsencode(folder)), case.wanted) == []


@pytest.mark.root
def test_fsck_of_erofs_utils(case: Case, tmp_path: Path) -> None:
    """What fsck.erofs extracts, as far as the file system it extracts to can hold large xattrs and far times."""
    wanted = {name: {**record, "mtime": _as_stored(tmp_path, record["mtime"])} for name, record in case.wanted.items()}
    large = any(len(value) > 2 * 1000 for record in wanted.values() for value in record["xattrs"].values())
    extracted = tmp_path / "extracted"
    fsck_erofs(case.image, "--no-xattrs" if large else "--xattrs", extract=extracted)
    ignore = ["xattrs"] if large else []
    assert differences(record_folder(os.fsencode(extracted), xattrs=not large), wanted, ignore=ignore) == []


def _as_stored(folder: Path, nanoseconds: int) -> int:
    """Return the time that a file in `folder` has when it is given this one."""
    probe = folder / "probe"
    probe.touch()
    os.utime(probe, ns=(nanoseconds, nanoseconds))
    return probe.stat().st_mtime_ns
