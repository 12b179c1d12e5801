"""The processes of a VM: the one in QEMU's place, its keeper, and the guard of its shared folders."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path

from shed.backends.jail.descriptors import CONSOLE
from shed.backends.qemu import process
from support.waiting import wait_until


def end(record: process.Record) -> None:
    """Kill a VM, and wait until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(record.pid)
        try:
            process.send_signal(record, signal.SIGKILL)
            assert select.select([handle], [], [], 60)[0], "it does not end"
        finally:
            os.close(handle)


def keeper(record: process.Record) -> int:
    """Return the process id of a VM's keeper, once it is one: it reads the pipe that the VM writes to."""
    pipe = Path(f"/proc/{record.pid}/fd/{CONSOLE}").readlink()

    def found() -> int:
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                named = (folder / "comm").read_text() == "shed-console\n"
                if named and pipe in {path.readlink() for path in (folder / "fd").iterdir()}:
                    return int(folder.name)
        return 0

    return wait_until(found)


def guards(record: process.Record) -> list[int]:
    """Return the process ids of the supervisors that watch a VM."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"/backends/guard\0" in (folder / "cmdline").read_bytes():
                known = [path.read_text() for path in (folder / "fdinfo").iterdir()]
                if any(f"\nPid:\t{record.pid}\n" in text for text in known):
                    found.append(int(folder.name))
    return found
