"""Sheds whose VMs have ended though nobody has asked the server for it: that is told, and some are started again.

A shed made with ``--restart always`` is one of these, whether its VM has crashed, was killed, or went with its host:
the last are found when a server starts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager

from shed.backends.base import Liveness
from shed.backends.interface import Backend
from shed.errors import NotFoundError, ShedError
from shed.progress import Progress
from shed.sheds import expiry
from shed.sheds.asleep import is_asleep
from shed.sheds.catalog import Catalog, load
from shed.sheds.entry import Entry
from shed.sheds.events import Events
from shed.sheds.folders import Folders
from shed.sheds.link import Link
from shed.sheds.metadata import Record
from shed.sheds.reboots import ENDED, Reboots
from shed.threads import in_thread

log = logging.getLogger(__name__)
_EXIT = 5.0
"""Seconds between the end of a link and that of its VM, when the guest has powered itself off."""
TRIES = (0.0, 10.0, 60.0)
"""Seconds before each attempt to start a shed again: what it needs of its host may come late, after a boot."""
_TOGETHER = 2
"""Sheds that are started at the same time when a server starts."""
Hold = Callable[[str, str], AbstractAsyncContextManager[tuple[Folders, Link]]]
Boot = Callable[[Record, Folders, Link, Progress], Awaitable[object]]


class Revivals:
    """Looks after the sheds in `catalog`, which are held by `hold` and started by `boot`."""

    def __init__(  # noqa: PLR0917  all that a start takes
        self, catalog: Catalog, names: Mapping[str, Entry], hold: Hold, backend: Backend, events: Events, boot: Boot
    ) -> None:
        self._catalog = catalog
        self._names = names
        self._hold = hold
        self._backend = backend
        self._events = events
        self._boot = boot
        self._reboots = Reboots()

    async def look_after(self, name: str) -> None:
        """Tell when the VM of a shed, whose link has closed, has ended by itself, and start it again if need be."""
        instance = self._catalog.folders(name).instance
        if self._names[name].doing or not await self._backend.wait_exit(instance, timeout=_EXIT):
            return
        end = ENDED
        try:
            async with self._hold(name, "look after") as (folders, _):
                if self._backend.liveness(instance) is Liveness.NOT_OURS:
                    await self._backend.kill(instance)  # nothing is left to end: its console is whole then
                    end = await in_thread(self._reboots.judge, folders, always=_always(folders))
                self._events.tell("shed.stopped", name, end.message)
        except NotFoundError:
            return
        if end.again is not None:
            await self._revive(name, end.again)

    async def resume(self) -> None:
        """Start those that are to run and do not: when a server starts, their host was down, or they have crashed."""
        turn = asyncio.Semaphore(_TOGETHER)

        async def in_turn(folders: Folders) -> None:
            end = await in_thread(self._reboots.judge, folders, always=True)
            if end.again is not None:
                async with turn:
                    await self._revive(folders.name, end.again)

        records = await in_thread(lambda: [one for one in self._catalog.records() if one.restart == "always"])
        down = [self._catalog.folders(record.name) for record in records if record.wanted == "running"]
        await asyncio.gather(*(in_turn(each) for each in down if self._is_down(each)))

    async def _revive(self, name: str, pause: float) -> None:
        """Start a shed again after `pause` seconds, unless somebody has stopped, deleted or started it by then."""
        for number, wait in enumerate(TRIES, 1):
            await asyncio.sleep(max(wait, pause))
            try:
                async with self._hold(name, "start") as (folders, link):
                    record = load(folders)
                    if record.wanted == "running" and self._is_down(folders) and expiry.left(record) > 0:
                        log.info("shed %s is started again", name)
                        await self._boot(record, folders, link, Progress())
                return
            except NotFoundError:
                return
            except ShedError as error:
                log.warning("shed %s could not be started again (%d of %d): %s", name, number, len(TRIES), error)

    def _is_down(self, folders: Folders) -> bool:
        """Say whether a shed does not run, and nobody has suspended it."""
        return self._backend.liveness(folders.instance) is Liveness.NOT_OURS and not is_asleep(folders)


def _always(folders: Folders) -> bool:
    """Say whether a shed is to run; not one whose record is damaged."""
    try:
        return load(folders).restart == "always"
    except ShedError:
        return False
