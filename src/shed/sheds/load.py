"""What running sheds use of their host: processor time and memory of their VMs, and disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shed.sheds.metadata import Record

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_USER_TIME, _SYSTEM_TIME, _RESIDENT = 11, 12, 21
"""Indexes among the fields of /proc/PID/stat behind the command's name; proc_pid_stat(5)."""
Threads = Mapping[str, tuple[float, float]]
"""By thread: seconds that it ran, and seconds that it waited to."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one VM uses."""

    cpu_seconds: float
    """Of all its processors together, since its start."""
    memory_bytes: int
    """That it has of the host's memory, what it shares with others included."""


def load_of(pid: int, proc: Path = Path("/proc")) -> Load | None:
    """Return what the process uses, None when it has ended."""
    try:
        stat = (proc / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    ticks = int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME])
    return Load(ticks / _TICKS, int(fields[_RESIDENT]) * _PAGE)


def threads_of(pid: int, proc: Path = Path("/proc")) -> Threads:
    """Return what the threads of the process have had of the processors.  Raises `OSError` when it has ended.

    All of it is one thread's where the kernel does not count how long threads wait.
    """
    found: dict[str, tuple[float, float]] = {}
    for thread in (proc / str(pid) / "task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            ran, waited, _ = (thread / "schedstat").read_bytes().split()
            found[thread.name] = int(ran) / 1e9, int(waited) / 1e9
    if any(ran for ran, _ in found.values()):
        return found
    load = load_of(pid, proc)
    return {} if load is None else {"": (load.cpu_seconds, 0.0)}


def views(machines: Iterable[tuple[Record, int, Path]]) -> Iterator[dict[str, Any]]:
    """Yield what the API shows of running sheds: of each its record, the process of its VM, and its writable layer."""
    for record, pid, upper in machines:
        if (load := load_of(pid)) is not None:
            yield {
                "name": record.name,
                "cpu_seconds": round(load.cpu_seconds, 2),
                "cpus": record.cpus,
                "memory_bytes": load.memory_bytes,
                "memory_mb": record.memory_mb,
                "disk_bytes": upper.stat().st_blocks * 512 if upper.exists() else 0,
                "upper_size_bytes": record.upper_size_bytes,
            }
