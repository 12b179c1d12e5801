"""How fast this host's time stamp counter runs, which is how fast an emulated guest's does.

QEMU gives emulated guests the host's counter.  A guest's kernel finds the rate by looking at emulated timers, and on a
busy host it can be wrong by a factor: it takes one that fired late for one that fired in time, and its clock then runs
five times too fast.  So it is told.
"""

from __future__ import annotations

import functools
import logging
import mmap
import time

log = logging.getLogger(__name__)
_RDTSC = bytes.fromhex("0f31 48c1e220 4809d0 c3")
"""rdtsc; shl rdx, 32; or rax, rdx; ret: a function of no arguments that returns 64 bits (System V ABI for x86-64)."""
_SECONDS = 0.05
_READINGS = 200
_STEP = 1_000
"""kHz to which the rate is rounded, so that two measurements are the same; the guest refines what is nearer than a
hundredth.
"""


@functools.cache
def khz() -> int | None:
    """Return the counter's rate in kHz, rounded; None when it cannot be read here.

    Blocks for a twentieth of a second.
    """
    try:
        ticks, seconds = _measure()
    except OSError as error:  # memory that can be written and executed may be forbidden
        log.warning(
            "the time stamp counter cannot be read (%s): clocks of emulated guests are right, but slower to read", error
        )
        return None
    return round(ticks / seconds / 1000 / _STEP) * _STEP or None


def _measure() -> tuple[int, float]:
    """Return how many ticks went by in how many seconds."""
    import ctypes  # noqa: PLC0415  needed once, by a server

    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(_RDTSC)
        start = ctypes.c_char.from_buffer(page)
        read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(start))
        try:
            before = min(_reading(read) for _ in range(_READINGS))
            time.sleep(_SECONDS)
            after = min(_reading(read) for _ in range(_READINGS))
        finally:
            del read, start  # the page cannot be given back before
    return after[1] - before[1], (after[2] - before[2]) / 1e9


def _reading(read: object) -> tuple[int, int, int]:
    """Return how many ns it took to read both clocks, and their values.

    Of several readings, the first of the quickest is used.
    """
    assert callable(read)
    begin = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    ticks = int(read())
    end = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    return end - begin, ticks, (begin + end) // 2
