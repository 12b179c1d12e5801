"""What a VM that has ended by itself comes to: it stays down, or the shed is started again, but not for ever."""

from __future__ import annotations

import collections
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from shed.sheds.folders import Folders

MOST, WITHIN = 5, 300.0
"""Times that a shed is started again within so many seconds: a guest that always ends costs no more."""
_REBOOTS = re.compile(rb"\breboot: Restarting system\s*$")
_POWERS_OFF = re.compile(rb"\breboot: Power down\s*$")
"""The kernel's last words (kernel/reboot.c), on the console whatever its log level."""
_TAIL = 512


@dataclass(frozen=True, slots=True)
class End:
    """What to say of the end of a VM, and after how many seconds the shed starts again; None: it does not."""

    message: str
    again: float | None


ENDED = End("its virtual machine has ended", None)


class Reboots:
    """Judges the ends of VMs."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: dict[str, collections.deque[float]] = {}

    def judge(self, folders: Folders, *, always: bool) -> End:
        """Judge the end of a VM.  `always`: its shed is to run, unless somebody stops it or its guest powers off.

        What the console says is the guest's word: it decides about its own shed alone, and not too often.
        """
        said = folders.console_tail()[0][-_TAIL:]
        reboots = _REBOOTS.search(said) is not None
        if not reboots and (not always or _POWERS_OFF.search(said)):
            return ENDED
        times = self._times.setdefault(folders.name, collections.deque(maxlen=MOST))
        now = self._clock()
        while times and now - times[0] >= WITHIN:
            times.popleft()
        if len(times) == MOST:
            return End(
                f"{ENDED.message}; it was started again {MOST} times in {WITHIN / 60:g} minutes, and stays down", None
            )
        times.append(now)
        if reboots:
            return End("it reboots", 0)
        return End(f"{ENDED.message}; it is started again", 2.0 ** (len(times) - 1))
