"""Guests that reboot: the VM ends with it, and the shed is started again."""

from __future__ import annotations

import collections
import re
import time
from collections.abc import Callable

from shed.sheds.folders import Folders

MOST, WITHIN = 5, 300.0
"""Times that a shed is started again within so many seconds: a guest that always reboots costs no more."""
_SAID = re.compile(rb"\breboot: Restarting system\s*$")
"""The kernel's last words (kernel/reboot.c), on the console whatever its log level."""
_TAIL = 512


class Reboots:
    """Tells which VMs have ended because their guests reboot."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: dict[str, collections.deque[float]] = {}

    def wanted(self, folders: Folders) -> bool:
        """Say whether the VM, which has ended, is to be started again.

        What the console says is the guest's word: it decides about its own shed alone, and not too often.
        """
        if not _SAID.search(folders.console_tail()[0][-_TAIL:]):
            return False
        times = self._times.setdefault(folders.name, collections.deque(maxlen=MOST))
        now = self._clock()
        if len(times) == MOST and now - times[0] < WITHIN:
            return False
        times.append(now)
        return True
