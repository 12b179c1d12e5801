"""A create up to the first successful exec, beside a bare QEMU that boots the same kernel to its init.

The bare boot is the same board, processors, memory and kernel with an initrd of one static busybox, whose init prints a
line.
"""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import Sample, compare, show
from benchmarks.world import shed, world
from shed.backends.qemu import accel, command, tsc
from shed.entries import Entry
from shed.images.bootkit.initrd import write_cpio

_INIT = b"#!/bin/sh\necho SHED-BENCH-INIT > /dev/console\nwhile :; do :; done\n"


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def pread(self, length: int, offset: int) -> bytes:
        return self.data[offset : offset + length]


def main() -> None:
    """Compare, and say how far the create is from the aim: 1.3 times the bare boot and one second."""
    with world() as data, _bare(data) as bare:
        number = 0

        def create() -> Sample:
            nonlocal number
            number += 1
            name = f"bench-{number}"
            start = time.perf_counter()
            shed("create", name, "--image", "base", "--cold")
            shed("exec", name, "--", "true")
            seconds = time.perf_counter() - start
            shed("delete", name, "--force")
            return Sample(seconds)

        result = compare(create, lambda: Sample(_boot(bare)))
    show("cold create to first exec", "shed", "bare boot to init", result)
    print(f"  aim: {1.3 * result.b + 1:.2f} s (1.3 times the bare boot, and one second)")


@contextmanager
def _bare(data: Path) -> Iterator[list[str]]:
    """Yield the command of the bare boot."""
    blobs = data / "images/blobs/sha256"
    kernel = json.loads((data / "images/kit.json").read_text())["kernel"].removeprefix("sha256:")
    qemu, busybox = shutil.which("qemu-system-x86_64"), shutil.which("busybox")
    if not qemu or not busybox:
        sys.exit("the boot benchmark needs qemu-system-x86 and busybox-static: make bench installs them")
    script, program, binaries = stat.S_IFREG | 0o755, Path(busybox).read_bytes(), Entry(b"bin", stat.S_IFDIR | 0o755)
    entries = [
        binaries,
        Entry(b"bin/sh", script, size=len(program), content=_Bytes(program)),
        Entry(b"dev", stat.S_IFDIR | 0o755),
        Entry(b"dev/console", stat.S_IFCHR | 0o600, rdev=5 << 8 | 1),
        Entry(b"init", script, size=len(_INIT), content=_Bytes(_INIT)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        initrd = Path(folder) / "initrd"
        with initrd.open("wb") as out:
            write_cpio(entries, out)
        verdict = json.loads((data / "accel.json").read_text())["accel"] if (data / "accel.json").exists() else "tcg"
        board = command.board(verdict, one_thread=verdict == "tcg" and accel.one_thread(Path(qemu)))
        words = command.kernel_command_line(verdict, tsc.khz())
        yield [
            qemu, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", *board, "-smp", "2",
            "-m", "2048M", "-kernel", str(blobs / kernel), "-initrd", str(initrd), "-append", words, "-serial", "stdio",
        ]  # fmt: skip


def _boot(words: list[str]) -> float:
    """Return the seconds from starting QEMU to init's line on the console."""
    start = time.perf_counter()
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        console = b""
        for line in child.stdout:
            console += line
            if b"SHED-BENCH-INIT" in line:
                break
        else:
            sys.exit(
                "the bare boot ended without reaching its init (exit code "
                f"{child.wait()}):\n{console.decode(errors='replace')}"
            )
        seconds = time.perf_counter() - start
        child.kill()
    return seconds
