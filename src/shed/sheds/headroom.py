"""What this host has left: memory, free space, and how long its programs wait for memory, disk and processor.

Sources: proc_meminfo(5); kernel, Documentation/accounting/psi.rst, Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

PROC, GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_KIB = 1024
_STALLED = re.compile(r"^(some|full) avg10=([0-9]+\.[0-9]+) ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes: what new programs can have without swapping, and what of the swap space is free."""

    available: int
    swap_free: int


def memory() -> Memory:
    """Return what there is of memory.  Raises OSError."""
    found = dict(re.findall(r"^(MemAvailable|SwapFree): +([0-9]+) kB$", (PROC / "meminfo").read_text(), re.MULTILINE))
    if "MemAvailable" not in found:
        raise FileNotFoundError(2, "no MemAvailable", str(PROC / "meminfo"))
    available, swap = int(found["MemAvailable"]) * _KIB, int(found.get("SwapFree", 0)) * _KIB
    mine = _of_my_groups()
    return Memory(available, swap) if mine is None or mine >= available else Memory(mine, 0)


def _of_my_groups() -> int | None:
    """Return the bytes of memory that the control groups (version 2) of this process still allow; None for no limit.

    A container has such a limit.
    """
    left = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = (PROC / "self/cgroup").read_text().splitlines()
        group = GROUPS / next(line for line in lines if line.startswith("0::/")).removeprefix("0::/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(GROUPS):
                break
            with contextlib.suppress(FileNotFoundError):
                most = (folder / "memory.max").read_text().strip()
                if most != "max":
                    cached = re.search(r"^inactive_file ([0-9]+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
                    used = int((folder / "memory.current").read_text()) - (int(cached[1]) if cached else 0)
                    left.append(max(0, int(most) - used))
    return min(left, default=None)


def held(pid: int) -> int:
    """Return the bytes of memory that are the process's own, swapped or not; 0 for one that is gone."""
    try:
        status = (PROC / str(pid) / "status").read_text()
    except OSError:
        return 0
    return (
        sum(int(number) for number in re.findall(r"^(?:RssAnon|RssShmem|VmSwap):\s+([0-9]+) kB$", status, re.MULTILINE))
        * _KIB
    )


def pressure(resource: str) -> float | None:
    """Return the percentage of the last ten seconds in which programs waited for `resource`.

    None where the kernel does not say.

    For ``memory`` and ``io`` that is when all that could run waited, for ``cpu`` when any did: all cannot.
    """
    try:
        found = dict(_STALLED.findall((PROC / "pressure" / resource).read_text()))
        return float(found["some" if resource == "cpu" else "full"])
    except (OSError, KeyError):
        return None
