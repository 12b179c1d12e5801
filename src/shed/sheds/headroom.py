"""What this host has left: memory, free space, and how long its programs wait for memory, disk and processor.

Sources: proc_meminfo(5); kernel, Documentation/accounting/psi.rst.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
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
    return Memory(int(found["MemAvailable"]) * _KIB, int(found.get("SwapFree", 0)) * _KIB)


def held(pid: int) -> int:
    """Return the bytes of memory that are the process's own, swapped or not; 0 for one that is gone."""
    try:
        status = (PROC / str(pid) / "status").read_text()
    except OSError:
        return 0
    return sum(int(number) for number in re.findall(r"^(?:RssAnon|RssShmem|VmSwap):\s+([0-9]+) kB$", status, re.MULTILINE)) * _KIB


def pressure(resource: str) -> float | None:
    """Return the percentage of the last ten seconds in which programs waited for `resource`; None where the kernel does not say.

    For ``memory`` and ``io`` that is when all that could run waited, for ``cpu`` when any did: all cannot.
    """
    try:
        found = dict(_STALLED.findall((PROC / "pressure" / resource).read_text()))
        return float(found["some" if resource == "cpu" else "full"])
    except (OSError, KeyError):
        return None
