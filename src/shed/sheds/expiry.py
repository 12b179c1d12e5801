"""Sheds that end: one with a time to live is deleted when that is over, with all that is in it, whatever runs there.

The time is the host's clock, and is kept with the shed.  So it goes on while the shed is stopped, while no server runs,
and while the host is off; what is over then is deleted when a server starts.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable

from shed.errors import NotFoundError, ShedError, UsageError
from shed.sheds import metadata
from shed.sheds.catalog import Catalog
from shed.sheds.events import Events
from shed.sheds.metadata import Record
from shed.threads import in_thread

log = logging.getLogger(__name__)
NOTICE = 300.0
"""Seconds before its end that a shed's end is told."""
_LOOK = 60.0
"""Most seconds from one look at the clock to the next, for it may be set; also until what has failed is tried again."""


def impossible(ttl: float) -> UsageError:
    """Return the error for a time to live that cannot be."""
    return UsageError(f"a shed cannot live for {ttl:g} s", hint="choose more than 0, and ten years at most")


def after(ttl: float | None) -> str | None:
    """Return the end of a shed that is to live `ttl` seconds from now; None for none, and for 0."""
    return metadata.at(math.ceil(time.time() + ttl)) if ttl else None


def left(record: Record) -> float:
    """Return the seconds that a shed still has."""
    return math.inf if record.expires_at is None else metadata.seconds_of(record.expires_at) - time.time()


class Expiry:
    """Has `delete` delete what is over of the sheds in `catalog`."""

    def __init__(self, catalog: Catalog, events: Events, delete: Callable[[str], Awaitable[None]]) -> None:
        self._catalog = catalog
        self._events = events
        self._delete = delete
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
                self._ending[record.name] = asyncio.create_task(self._end(record.name))
                continue
            if over <= NOTICE and self._told.get(record.name) != record.expires_at:
                self._told[record.name] = record.expires_at
                self._events.tell("shed.expiring", record.name, f"it is deleted at {record.expires_at}")
                log.warning("shed %s is deleted at %s", record.name, record.expires_at)
            next_in = min(next_in, over - NOTICE if over > NOTICE else over, _LOOK)
        return None if math.isinf(next_in) else next_in

    async def _end(self, name: str) -> None:
        log.warning("shed %s is deleted: its time is up", name)
        try:
            await self._delete(name)
        except NotFoundError:
            pass
        except ShedError as error:
            log.warning("shed %s, whose time is up, cannot be deleted: %s", name, error)
            await asyncio.sleep(_LOOK)
        finally:
            del self._ending[name]
            self._told.pop(name, None)
            self._changed.set()
