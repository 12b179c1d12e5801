"""A file over 4 GiB: written, checked, read by us and by a kernel at the places where 32 bits end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shed.entries import Entry
from shed.erofs.checker import check
from shed.erofs.reader import Image
from shed.erofs.verifier import verify_contents
from shed.erofs.writer import write_image
from support.erofs.mount import mounted
from support.erofs.trees import folder, noise, sparse, text

GIB = 1 << 30
SIZE = 5 * GIB + 12345
PIECES = [
    (0, text(100_000)),
    (2 * GIB - 50_000, noise(100_000)),
    (4 * GIB - 100_000, text(200_001)),
    (4 * GIB + 500_000, noise(70_000)),
    (SIZE - 77, text(77)),
]


def entries() -> list[Entry]:
    return [folder(""), sparse("large", SIZE, *PIECES)]


@pytest.mark.slow
@pytest.mark.root
def test_a_file_over_four_gigabytes(tmp_path: Path) -> None:
    """It is written, checked, verified, and read by us and by the kernel."""
    path = tmp_path / "image"
    with path.open("w+b") as out:
        write_image(entries(), out)
    assert check(path, data=True).logical == SIZE
    assert verify_contents(path, entries()).data_bytes == SIZE
    with (
        Image.open(path) as image,
        mounted(path, tmp_path / "mount") as folder_,
        (folder_ / "large").open("rb") as file,
    ):
        inode = image.lookup(b"large")
        assert os.fstat(file.fileno()).st_size == inode.size == SIZE
        for offset, data in PIECES:
            for start in (max(offset - 10, 0), offset + len(data) // 2, max(offset - 300_000, 0)):
                wanted = entries()[1].content
                assert wanted
                expected = wanted.pread(400_000, start)
                assert image.read(inode, start, 400_000) == expected
                assert os.pread(file.fileno(), 400_000, start) == expected
