"""What the kernel says of a VM's process becomes what people read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from shed.sheds.load import Load, load_of


def test_the_fields_are_the_right_ones(tmp_path: Path) -> None:
    """Also behind a name with spaces and parentheses (proc_pid_stat(5))."""
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    fields = ["S", *("0" for _ in range(10)), "150", "50", *("0" for _ in range(8)), "7", "0"]
    (tmp_path / "9").mkdir()
    (tmp_path / "9/stat").write_text(f"9 (a) b (c) {' '.join(fields)}\n")
    assert load_of(9, tmp_path) == Load(200 / ticks, 7 * page)


def test_a_real_process() -> None:
    """One that works has used time and memory; one that has ended is none."""
    work = "x = bytearray(30 << 20)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", work]) as process:
        while (load := load_of(process.pid)) is None or load.cpu_seconds < 0.1 or load.memory_bytes < 30 << 20:
            assert process.poll() is None
        process.kill()
        process.wait()
        assert load_of(process.pid) is None
