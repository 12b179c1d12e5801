"""What goes wrong in sheds that run, as their host sees it: programs that were ended for want of memory, full disks.

Nothing in a shed is asked.  Its kernel says on the console whom it has ended; root in there can write the same, about
that shed alone, so what is passed on is short, and not told often.  How full a disk is, is measured by what it takes up
on the host.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from shed.config.paths import Paths
from shed.sheds.events import Events
from shed.sheds.folders import Folders
from shed.sheds.metadata import Record
from shed.threads import in_thread
from shed.untrusted import told

log = logging.getLogger(__name__)
_KILLED = re.compile(rb"ut of memory: Killed process \d{1,10} \(([^\n)]{1,32})\)")
"""The kernel's words, for its own memory and for that of a control group (mm/oom_kill.c), at every log level."""
_READ = 1 << 16
"""Bytes of a console that are looked at each time, its last ones."""
_OVERLAP = 128
"""Bytes that are looked at again: such words may have been half written."""
_LOOK = 5.0
"""Seconds between two looks."""
_QUIET = 60.0
"""Seconds after an event of a shed in which the same is counted, and not told."""
_SHOWN = 3600.0
"""Seconds for which `shed list` shows that a program was ended."""
_FULL, _AGAIN = 0.93, 0.9
"""Parts of a disk that are taken up when it counts as full, and when it does no more.  A file system of 1 GiB in which
nothing can be written any more takes up 0.937 of it: it has not touched what it keeps for itself.
"""


@dataclass(slots=True)
class _State:
    """What is known of one shed since its start."""

    console: int
    """The inode of its console's log: each start has another."""
    position: int = 0
    victim: str = ""
    """The program that was ended last."""
    when: float = 0.0
    times: int = 0
    told: float = field(default=-_QUIET)
    full: bool = False


class Troubles:
    """Looks after what `running` yields, of the sheds below `paths`."""

    def __init__(
        self,
        paths: Paths,
        running: Callable[[], Iterator[tuple[Record, Path]]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paths = paths
        self._running = running
        self._clock = clock
        self._states: dict[str, _State] = {}
        self._new = True

    def of(self, name: str) -> str:
        """Return what to say of a running shed; nothing when it is well, or was not looked at."""
        state = self._states.get(name)
        if state is None:
            return ""
        said = []
        if state.full:
            said.append(f"its disk is full, or nearly so; give it more: shed update {name} --upper-size SIZE")
        if state.times and self._clock() - state.when < _SHOWN:
            said.append(f"{_ended(state)}; give it more: shed update {name} --memory SIZE && shed restart {name}")
        return "; ".join(said)

    async def keep(self, events: Events) -> None:
        """Look again and again, and tell `events`."""
        while True:
            await self.look(events)
            await asyncio.sleep(_LOOK)

    async def look(self, events: Events) -> None:
        """Look at all that run, and tell what is new; what an earlier server may have told is not."""
        found = await in_thread(lambda: list(self._running()))
        before, self._states = self._states, {}
        for record, folder in found:
            upper, known = Folders(self._paths, record.name).upper, before.get(record.name)
            try:
                state, words, full = await in_thread(_see, folder, upper, known, skip=self._new)
            except OSError as error:  # it is being deleted, or begins anew
                log.debug("shed %s: %s", record.name, error)
                continue
            self._states[record.name] = state
            self._tell(events, record.name, state, words, full=full)
        self._new = False

    def _tell(self, events: Events, name: str, state: _State, words: list[str], *, full: bool | None) -> None:
        if full is not None and full != state.full:
            state.full = full
            if full:
                events.tell("shed.disk-full", name, "its disk is full, or nearly so")
        if not words:
            return
        state.victim, state.when, state.times = words[-1], self._clock(), state.times + len(words)
        if state.when - state.told >= _QUIET:
            state.told = state.when
            events.tell("shed.out-of-memory", name, _ended(state))


def _ended(state: _State) -> str:
    times = "" if state.times == 1 else f" ({state.times} such ends since its start)"
    return f"out of memory: its kernel ended {state.victim}{times}"


def _see(folder: Path, upper: Path, known: _State | None, *, skip: bool) -> tuple[_State, list[str], bool | None]:
    """Return what is known of a shed, the programs of which its console tells anew, and whether its disk is full.

    That is None for in between.  With `skip` what a console says already is not new.
    """
    with (folder / "console.log").open("rb", buffering=0) as file:
        log_file = os.fstat(file.fileno())
        state = known
        if state is None or log_file.st_ino != state.console:
            state = _State(log_file.st_ino, log_file.st_size if skip else 0)
        begin = max(0, min(state.position, log_file.st_size) - _OVERLAP, log_file.st_size - _READ)
        text = os.pread(file.fileno(), _READ, begin)
        new = (found for found in _KILLED.finditer(text) if begin + found.end() > state.position)
        words = [told(found[1].decode(errors="replace")) for found in new]
        state.position = begin + len(text)
    disk = upper.stat()
    part = disk.st_blocks * 512 / max(1, disk.st_size)
    return state, words, True if part >= _FULL else False if part < _AGAIN else None
