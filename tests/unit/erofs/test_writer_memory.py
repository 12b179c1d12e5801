"""How much memory writing a large image takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MEASURE = """
import re, stat, sys
from shed.entries import Entry
from shed.erofs.writer import Compression, WriterOptions, write_image
from support.erofs.trees import text

BASE = text(1 << 20) * 2

class Turned:
    def __init__(self, turn):
        self.turn = turn
    def pread(self, length, offset):
        start = (offset + self.turn) % (1 << 20)
        return BASE[start : start + length] if length <= 1 << 20 else BASE[:length]

def entries():
    yield Entry(b"", stat.S_IFDIR | 0o755)
    for folder in range(100):
        yield Entry(b"%03d" % folder, stat.S_IFDIR | 0o755)
        for number in range(130):
            size = 30_000 + 157 * number if number else 2_000_000
            content = Turned(folder * 1009 + number)
            yield Entry(b"%03d/%03d" % (folder, number), stat.S_IFREG | 0o644, size=size, content=content)

def peak():  # not ru_maxrss: that begins with what the process had that started this one
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])

before = peak()
with open(sys.argv[1], "w+b") as out:
    result = write_image(entries(), out, WriterOptions(compression=Compression.parse(sys.argv[2]), threads=4))
print(result.data_bytes, result.inodes, before, peak())
"""


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["lz4", "zstd:1"])
def test_memory_stays_small(tmp_path: Path, compression: str) -> None:
    """13,000 files, 700 MB: the whole process stays under 120 MB."""
    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parents[3] / "src")]
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path[:0] = {paths!r}\n{MEASURE}",
        str(tmp_path / "image"),
        compression,
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=250)
    data, inodes, before, peak = map(int, done.stdout.split())
    assert data > 700_000_000
    assert inodes == 13_101
    assert peak < 120 << 10, f"{peak >> 10} MiB, {before >> 10} MiB of it before anything was written"
