"""Bringing up a shed that is there: its ports are taken, its VM starts or goes on, its network leads to the relay."""

from __future__ import annotations

from collections.abc import Callable

from shed.backends.interface import Backend
from shed.config.server import Settings
from shed.progress import Progress
from shed.sheds import asleep, lifecycle, nic
from shed.sheds.admission import Admission
from shed.sheds.create import Resolve
from shed.sheds.egress import Egress
from shed.sheds.events import Events
from shed.sheds.folders import Folders
from shed.sheds.link import Link
from shed.sheds.metadata import Record
from shed.sheds.ports import Ports
from shed.sheds.snapshotstore import Origin
from shed.sheds.terms import Terms
from shed.sheds.warm import WarmStart
from shed.threads import to_the_end


class BringUp:
    """Brings up sheds that its callers hold."""

    def __init__(  # noqa: PLR0917  all that a shed needs
        self,
        backend: Backend,
        resolve: Resolve,
        settings: Settings,
        admission: Admission,
        warm: WarmStart,
        terms: Terms,
        egress: Egress,
        ports: Ports,
        events: Events,
        started: Callable[[Record], None],
    ) -> None:
        self._backend = backend
        self._resolve = resolve
        self._settings = settings
        self._admission = admission
        self._warm = warm
        self._terms = terms
        self._egress = egress
        self._ports = ports
        self._events = events
        self._started = started

    async def boot(
        self,
        record: Record,
        folders: Folders,
        link: Link,
        progress: Progress,
        *,
        cold: bool = False,
        force: bool = False,
        disk_only: bool = False,
        origin: Origin | None = None,
    ) -> tuple[Record, str]:
        """Start a shed that does not run; return its record, and how its VM came up.

        It goes on from the memory of `origin`, with whose disk it begins, if that is given.  A suspended one goes on
        where it was, unless `disk_only`; then whoever asks cannot cut it short, because what has begun to go on has
        nothing to go back to.
        """
        way = None if cold else self._warm
        work = self._boot(record, folders, link, progress, way, force=force, disk_only=disk_only, origin=origin)
        return await (to_the_end(work) if asleep.is_asleep(folders) else work)

    async def _boot(
        self,
        record: Record,
        folders: Folders,
        link: Link,
        progress: Progress,
        warm: WarmStart | None,
        *,
        force: bool,
        disk_only: bool,
        origin: Origin | None,
    ) -> tuple[Record, str]:
        await link.drop()
        if not record.is_ruled:
            nic.check(self._settings)
        async with self._ports.held(record.name, record.published):
            record, booted = await lifecycle.start(
                record,
                folders,
                self._backend,
                self._resolve,
                warm,
                equip=self._terms.equip,
                admission=self._admission,
                force=force,
                disk_only=disk_only,
                origin=origin,
                wait=self._settings.start_timeout,
                progress=progress,
            )
            link.set(booted.connection)
            await self._egress.begin(record, folders.instance, progress)
        self._events.tell("shed.resumed" if booted.way == "resumed" else "shed.started", record.name)
        if booted.way != "resumed" and origin is None:
            self._started(record)
        return record, booted.way
