"""Sheds that end: one with a time to live is deleted when that is over, with all that is in it, whatever runs there.

It is stopped or suspended instead if its user has chosen that, and has no end then.

The time is the host's clock, and is kept with the shed.  So it goes on while the shed is stopped, while no server runs,
and while the host is off; what is over then is deleted when a server starts.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from shed.errors import ConflictError, NotFoundError, ShedError, UsageError
from shed.progress import Progress
from shed.sheds import metadata
from shed.sheds.attached import Delete
from shed.sheds.catalog import Catalog
from shed.sheds.changes import Hold
from shed.sheds.events import Events
from shed.sheds.metadata import Record
from shed.threads import in_thread

log = logging.getLogger(__name__)
End = Callable[[str, Progress], Awaitable[object]]
"""Ends a shed, by its name."""
_DONE = {"delete": "deleted", "stop": "stopped", "suspend": "suspended"}
NOTICE = 300.0
"""Seconds before its end that a shed's end is told."""
_LOOK = 60.0
"""Most seconds from one look at the clock to the next, for it may be set; also until what has failed is tried again."""


def impossible(ttl: float) -> UsageError:
    """Return the error for a time to live that cannot be."""
    return UsageError(f"a shed cannot live for {ttl:g} s", hint="choose more than 0, and ten years at most")


def action(wanted: str, *, shares: bool) -> str:
    """Return what is done when the time of a shed is up, which may share folders.

    Raises `UsageError` for what cannot be done then.
    """
    if wanted == "suspend" and shares:
        raise UsageError(
            "a shed with a folder of the host cannot be suspended when its time is up", hint="choose to stop it"
        )
    return wanted


def after(ttl: float | None) -> str | None:
    """Return the end of a shed that is to live `ttl` seconds from now; None for none, and for 0."""
    return metadata.at(math.ceil(time.time() + ttl)) if ttl else None


def left(record: Record) -> float:
    """Return the seconds that a shed still has."""
    return math.inf if record.expires_at is None else metadata.seconds_of(record.expires_at) - time.time()


def is_over(record: Record) -> bool:
    """Return whether the time of a shed is up."""
    return left(record) <= 0


class Expiry:
    """Has `delete` or `ends` end what is over of the sheds in `catalog`, in the way of each of `TTL_ACTIONS`."""

    def __init__(self, catalog: Catalog, events: Events, hold: Hold, delete: Delete, ends: Mapping[str, End]) -> None:
        self._catalog = catalog
        self._events = events
        self._hold = hold
        self._delete = delete
        self._ends = ends
        self._changed = asyncio.Event()
        self._told: dict[str, str] = {}
        """The ends that were told, by shed."""
        self._ending: dict[str, asyncio.Task[None]] = {}

    def look(self) -> None:
        """Take note that the end of a shed may have changed."""
        self._changed.set()

    async def keep(self) -> None:
        """Delete what is over, for as long as this runs."""
        try:
            while True:
                self._changed.clear()
                wait = self._turn(await in_thread(lambda: list(self._catalog.records())))
                try:
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
                except TimeoutError:
                    pass
        finally:
            for task in self._ending.values():
                task.cancel()
            await asyncio.gather(*self._ending.values(), return_exceptions=True)

    def _turn(self, records: list[Record]) -> float | None:
        """Do what is to be done now; return the seconds until there may be more, None when no shed has an end."""
        next_in = math.inf
        for record in records:
            if record.expires_at is None or record.name in self._ending:
                continue
            over = left(record)
            if over <= 0:
                self._ending[record.name] = asyncio.create_task(self._end(record))
                continue
            if over <= NOTICE and self._told.get(record.name) != record.expires_at:
                self._told[record.name] = record.expires_at
                done = _DONE[record.ttl_action]
                self._events.tell("shed.expiring", record.name, f"it is {done} at {record.expires_at}")
                log.warning("shed %s is %s at %s", record.name, done, record.expires_at)
            next_in = min(next_in, over - NOTICE if over > NOTICE else over, _LOOK)
        return None if math.isinf(next_in) else next_in

    async def _end(self, record: Record) -> None:
        name, done = record.name, _DONE[record.ttl_action]
        log.warning("shed %s is %s: its time is up", name, done)
        try:
            if record.ttl_action == "delete":
                await self._delete(name, is_over, "its time was up")
            else:
                await self._rest(name, self._ends[record.ttl_action])
        except NotFoundError:
            pass
        except ShedError as error:
            log.warning("shed %s, whose time is up, cannot be %s: %s", name, done, error)
            await asyncio.sleep(_LOOK)
        finally:
            del self._ending[name]
            self._told.pop(name, None)
            self._changed.set()

    async def _rest(self, name: str, end: End) -> None:
        """Have a shed rest by `end`, unless it does, and have no end any more.  Raises `ShedError`."""
        if left(await in_thread(self._catalog.record, name)) > 0:  # it has been changed a moment ago
            return
        if self._catalog.get(name)["status"] != "suspended":
            try:
                await end(name, Progress())
            except ConflictError as error:
                if error.code not in {"SHED_ALREADY_STOPPED", "SHED_SUSPENDED"}:
                    raise
        async with self._hold(name, "update") as (folders, _):
            record = metadata.load(folders.instance)
            if left(record) <= 0:
                await in_thread(metadata.save, folders.instance, replace(record, expires_at=None))
