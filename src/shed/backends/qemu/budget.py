"""What one VM may take from its host, as far as any process can be limited: limits, priority, OOM score.

The memory, processor and task limits need a control group: see `shed.backends.qemu.groups`.  What is here holds on
every host.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)
_PROC = Path("/proc")
_MIB = 1 << 20
_OVERHEAD_MB = 512
"""Beside the guest's memory: QEMU itself (43 MiB beside an idle guest), its buffers for disks, network and shares, and
its page cache.
"""
_TRANSLATED_MB = 1024
"""QEMU's buffer of translated code, where the processor is emulated; its default size."""
_TASKS = 256
"""Beside the processors' threads: QEMU's pool for disks and shares has 64 at most, for each of a few event loops."""
_OPEN_FILES = 4096
"""Each connection through the user-mode network is one, and each file that is open in a share (QEMU closes those again
at half).
"""
_NICE_TEMPLATE = 10
"""A template is made when nobody else needs the processor."""
_OOM_SHED, _OOM_TEMPLATE = 500, 900
"""Who the kernel ends first when memory is short, from 0 to 1000: a VM goes before the server, what nobody waits for
before a VM.
"""


@dataclass(frozen=True, slots=True)
class Budget:
    """What one QEMU may have."""

    memory_bytes: int
    """With its page cache; beyond that the kernel takes pages back, and when there are none left it ends QEMU."""
    swap_bytes: int
    tasks: int
    cpu_percent: int
    """Of one processor."""
    nice: int = 0
    oom_score: int = _OOM_SHED


def plan(cpus: int, memory_mb: int, accel: str, *, template: bool = False) -> Budget:
    """Return the budget of a machine of that shape; a `template` is one that is made to be saved."""
    overhead = _OVERHEAD_MB + (_TRANSLATED_MB if accel == "tcg" else 0)
    return Budget(
        memory_bytes=(memory_mb + overhead) * _MIB,
        swap_bytes=memory_mb * _MIB,
        tasks=cpus + _TASKS,
        cpu_percent=(cpus + 1) * 100,  # QEMU's own thread does the guest's input and output
        nice=_NICE_TEMPLATE if template else 0,
        oom_score=_OOM_TEMPLATE if template else _OOM_SHED,
    )


def apply(pid: int, budget: Budget) -> None:
    """Hold the process `pid`, a child of ours that does not run QEMU yet, to what needs no control group."""
    _limit(pid, resource.RLIMIT_CORE, 0)  # a core file would hold the guest's memory, and fill the disk
    _limit(pid, resource.RLIMIT_NOFILE, _OPEN_FILES)
    if budget.nice:
        with _allowed("its priority"):
            os.setpriority(os.PRIO_PROCESS, pid, max(budget.nice, os.getpriority(os.PRIO_PROCESS, pid)))
    with _allowed("its place when memory is short"):
        score = _PROC / str(pid) / "oom_score_adj"
        score.write_text(str(max(budget.oom_score, int(score.read_text()))))


def _limit(pid: int, which: int, most: int) -> None:
    with _allowed("its limits"):
        hard = resource.prlimit(pid, which)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.prlimit(pid, which, (most, most))


@contextlib.contextmanager
def _allowed(what: str) -> Iterator[None]:
    """Go on without what this host refuses, and say so."""
    try:
        yield
    except OSError as error:
        log.warning("this host does not let a VM be given %s: %s", what, error.strerror)
