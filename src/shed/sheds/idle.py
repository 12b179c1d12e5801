"""Sheds that are suspended when nobody has used them for a time of their choice, and nothing in them was busy.

What that is, is in `shed.sheds.activity`.  The time begins anew with each server, and when a shed starts or goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from shed.backends.base import Liveness
from shed.backends.interface import Backend
from shed.errors import ConflictError, ShedError, UsageError
from shed.names import MAX_IDLE, MIN_IDLE
from shed.progress import Progress
from shed.sheds import leases
from shed.sheds.activity import LOOKS, Idleness, Use
from shed.sheds.catalog import Catalog
from shed.sheds.events import Events
from shed.sheds.load import Threads, threads_of
from shed.sheds.metadata import Record
from shed.threads import in_thread

log = logging.getLogger(__name__)
_OFTEN, _SELDOM = 1.0, 60.0
"""Least and most seconds from one look to the next."""
_NOTICE = 0.1
"""Part of its time that is left when it is told that a shed is idle: some looks."""
_OTHERS_CAME = frozenset({"SHED_NOT_FOUND", "SHED_BUSY", "SHED_SUSPENDED", "SHED_ALREADY_STOPPED"})


class Suspend(Protocol):
    """Suspends a shed, by its name, unless it is not to be any more; `Suspensions.suspend`."""

    def __call__(self, name: str, progress: Progress, *, by: str, still: Callable[[], bool]) -> Awaitable[object]:
        """Raises `NotFoundError`, `ConflictError`, and what a suspend does."""
        ...


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one look at a shed that runs has shown."""

    pid: int
    threads: Threads
    kept: bool
    """Whether a lease keeps it awake."""


def chosen(wanted: float | None, default: float, network: str, *, shares: bool) -> int:
    """Return after how many seconds at idleness a shed is suspended, 0 for never; `default` where that is possible.

    `shares` says whether it has folders of the host.

    Raises `UsageError` for a time that cannot be, `ConflictError` (CANNOT_SUSPEND).
    """
    obstacle = ""
    if shares:
        obstacle = "a shed that shares a folder of the host cannot be suspended"
        way = "copy the folder (shed cp) rather than share it; or have it stop at a time: --ttl TIME --ttl-action stop"
    elif network == "nic":
        obstacle = "what a shed with a network of its own does there is not known, so it is not suspended when idle"
        way = "leave out --network nic; or have it suspended at a time: --ttl TIME --ttl-action suspend"
    if wanted is None:
        return 0 if obstacle else math.ceil(default)
    if wanted and obstacle:
        raise ConflictError(obstacle, code="CANNOT_SUSPEND", hint=f"{way}; or --idle-suspend none")
    if wanted and not MIN_IDLE <= wanted <= MAX_IDLE:
        raise UsageError(
            f"a shed is not suspended after {wanted:g} s of idleness",
            hint=f"choose from {MIN_IDLE} s to {MAX_IDLE // 86400} days, or 0 for never",
        )
    return math.ceil(wanted)


class Idle:
    """Has `suspend` suspend those of the sheds in `catalog` that are idle.

    `use` has who uses them; `flows` returns how many connections lead out of each, None when that cannot be told, and
    blocks for a moment.
    """

    def __init__(  # noqa: PLR0917  all that tells, and all that is told
        self,
        catalog: Catalog,
        backend: Backend,
        events: Events,
        use: Use,
        flows: Callable[[], Mapping[str, int] | None],
        suspend: Suspend,
    ) -> None:
        self._catalog = catalog
        self._backend = backend
        self._events = events
        self._use = use
        self._flows = flows
        self._suspend = suspend
        self._pids: dict[str, int] = {}
        """The VMs that are watched: one that has another process was started anew."""
        self._told: set[str] = set()
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    def look(self) -> None:
        """Take note that there may be another shed, or one has another time."""
        self._changed.set()

    async def keep(self) -> None:
        """Suspend what is idle, for as long as this runs."""
        try:
            while True:
                self._changed.clear()
                try:
                    wait = await self._turn()
                except Exception:  # one that cannot be looked at has the others wait, and no more
                    log.exception("looking for sheds that are idle")
                    wait = _SELDOM
                try:
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
                except TimeoutError:
                    pass
        finally:
            for task in self._ending.values():
                task.cancel()
            await asyncio.gather(*self._ending.values(), return_exceptions=True)

    async def _turn(self) -> float | None:
        """Look at those that are due; return the seconds until the next look, None when no shed is to be suspended."""
        records = await in_thread(lambda: [record for record in self._catalog.records() if record.idle_suspend])
        now = self._use.clock()
        due = [record for record in records if self._is_due(record, now)]
        if due:
            seen, flows = await in_thread(self._seen, due)
            for record in due:
                self._take(record, now, seen.get(record.name), flows=flows is None or flows.get(record.name, 0) > 0)
        for name in self._use.watched.keys() - {record.name for record in records}:
            self._forget(name)
        least = min((record.idle_suspend for record in records), default=0)
        return min(max(least / LOOKS, _OFTEN), _SELDOM) if records else None

    def _is_due(self, record: Record, now: float) -> bool:
        idleness = self._use.watched.get(record.name)
        return record.name not in self._ending and (
            idleness is None or idleness.limit != record.idle_suspend or idleness.is_due(now)
        )

    def _seen(self, records: list[Record]) -> tuple[dict[str, _Seen], Mapping[str, int] | None]:
        """Return what there is to see of sheds that run, and the connections that lead out of all."""
        found = {}
        for record in records:
            folder = self._catalog.folders(record.name).instance
            with contextlib.suppress(ShedError, OSError):  # it has just gone
                pid = self._backend.pid(folder)
                if pid is not None and self._backend.liveness(folder) is Liveness.OURS:
                    found[record.name] = _Seen(pid, threads_of(pid), kept=bool(leases.load(folder)))
        return found, self._flows() if found else {}

    def _take(self, record: Record, now: float, seen: _Seen | None, *, flows: bool) -> None:
        """Take note of what was seen of a shed, tell that it is soon suspended, or suspend it."""
        name = record.name
        if seen is None:
            self._forget(name)
            return
        idleness = self._use.watched.get(name)
        if idleness is None or idleness.limit != record.idle_suspend or self._pids[name] != seen.pid:
            self._forget(name)
            idleness = self._use.watched[name] = Idleness(record.idle_suspend, now)
            self._pids[name] = seen.pid
        if seen.kept or self._use.is_open(name):
            idleness.use(now)
        idleness.look(now, seen.threads, flows=flows)
        left = idleness.left(now)
        if left <= 0:
            self._ending[name] = asyncio.create_task(self._end(name, idleness))
        elif left > idleness.limit * _NOTICE:
            self._told.discard(name)
        elif name not in self._told:
            self._told.add(name)
            self._events.tell("shed.idle", name, f"it is suspended in about {left:.0f} s, unless it is used before")

    async def _end(self, name: str, idleness: Idleness) -> None:
        def still() -> bool:
            return not self._use.is_open(name) and idleness.left(self._use.clock()) <= 0

        try:
            await self._suspend(name, Progress(), by="idle", still=still)
            log.info("shed %s is suspended: it was idle for %d s", name, idleness.limit)
        except ShedError as error:
            if error.code not in _OTHERS_CAME:
                log.warning("shed %s, which is idle, cannot be suspended: %s", name, error)
        finally:
            del self._ending[name]
            self._forget(name)

    def _forget(self, name: str) -> None:
        """Begin anew with a shed."""
        self._use.watched.pop(name, None)
        self._pids.pop(name, None)
        self._told.discard(name)
