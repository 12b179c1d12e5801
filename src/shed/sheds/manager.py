"""All sheds of one server: their names, who works on which, and the live links to their agents.

What is done under a name is in `create` and `lifecycle`; what is only read is in `catalog`, streams are in `guests`.

The VMs do not belong to this object.  It can be closed, or killed, at any time; the next one finds every VM by its
record, links to its agent again, and undoes creates that were cut short.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial

from shed.api.making import CreateShed, UpdateShed
from shed.backends.base import Connection, Liveness
from shed.backends.interface import Backend
from shed.config.paths import Paths
from shed.config.server import Settings
from shed.errors import BackendError, ConflictError, ShedError, UnavailableError
from shed.progress import Progress
from shed.sheds import folders as places
from shed.sheds import lifecycle, rename
from shed.sheds.admission import Admission
from shed.sheds.asleep import is_asleep
from shed.sheds.attached import Attached, Over
from shed.sheds.awake import Awake
from shed.sheds.background import Background
from shed.sheds.boot import attach
from shed.sheds.bringup import BringUp
from shed.sheds.catalog import Catalog, View, load, missing
from shed.sheds.changes import Changes
from shed.sheds.consoles import keep_short
from shed.sheds.create import Ensure, Resolve, create, plan
from shed.sheds.egress import Egress
from shed.sheds.entry import Entry
from shed.sheds.events import Events
from shed.sheds.expiry import End, Expiry
from shed.sheds.folders import Folders
from shed.sheds.forks import Forks
from shed.sheds.guests import Guests, Tell, keep_guests
from shed.sheds.idle import Idle
from shed.sheds.link import Link
from shed.sheds.mounts import Mounts
from shed.sheds.ports import Ports
from shed.sheds.prebuilds import Prebuilds, Sheds
from shed.sheds.revivals import Revivals
from shed.sheds.room import Room
from shed.sheds.setup import Setup
from shed.sheds.snapshots import Snapshots
from shed.sheds.snapshotstore import Origin
from shed.sheds.suspensions import Suspensions
from shed.sheds.terms import Terms
from shed.sheds.update import update
from shed.sheds.warm import WarmStart
from shed.threads import in_thread

log = logging.getLogger(__name__)
_STARTS = frozenset({"create", "start", "adopt"})
"""What may wait for a guest for minutes, so that a stop or a forced delete ends it."""
_LEAVES_ALONE = frozenset({"", "snapshot", "fork", "awake"})
"""Work meanwhile which a shed that runs can be used as ever."""


class Manager:
    """The sheds below `paths`, run by `backend`.

    Images are found by `resolve`, after `ensure`, if given, has pulled them.
    """

    def __init__(
        self,
        paths: Paths,
        backend: Backend,
        resolve: Resolve,
        settings: Settings | None = None,
        *,
        ensure: Ensure | None = None,
    ) -> None:
        self._paths = paths
        self.backend = self._backend = backend
        """What runs the VMs."""
        self._resolve = resolve
        self._ensure = ensure
        self._settings = settings = settings or Settings()
        self._admission = Admission(paths, backend, self._settings)
        self._warm = WarmStart(paths, backend, self._settings, self._admission)
        self._room = Room(paths, backend)
        self._names: dict[str, Entry] = {}
        self.catalog = Catalog(paths, backend, self._names, self._admission.space, self._room)
        """What there is to read about sheds."""
        self.guests = Guests(self.link, self._names)
        """Streams into those that run."""
        self.terms = Terms(paths, self._settings)
        """What holds for them."""
        self.events = Events()
        """What happens to them."""
        self.ports = Ports(self.guests, self._settings, self.catalog.records)
        """Ports of this host that lead to them."""
        running, closed = self.catalog.running, self.ports.is_closed
        self.egress = Egress(paths, backend, self._settings, self.terms, running, closed=closed, events=self.events)
        """What they may reach."""
        self.changes = Changes(self._holding, backend, self.catalog, self.terms, self.egress, self.ports)
        """Changes of what holds for them."""
        self.mounts = Mounts(self._holding, backend, resolve)
        """Changes of their folders of the host."""
        self.setup = Setup(self.guests, self.catalog, self.changes.set_provision, self.terms, settings, self.events)
        """What new ones get when they are up, and what their projects have run."""
        more = self.terms, self.egress, self.ports, self.events, self.setup.begin
        self._bring_up = BringUp(backend, resolve, settings, self._admission, self._warm, *more)
        self._revivals = Revivals(self.catalog, self._names, self._holding, backend, self.events, self._bring_up.boot)
        self.snapshots = Snapshots(self._holding, backend, paths, resolve, self._bring_up)
        """What they were at a moment, and `forks`: others that go on from there."""
        self.forks = Forks(paths, self.snapshots, self.create)
        open_exec = partial(self.guests.open_exec, autostart=False)
        discard = partial(self._delete_if, over=lambda _: True, why="its prebuild has what it is for")
        self.prebuilds = Prebuilds(paths, Sheds(self.create, discard, open_exec), self.snapshots)
        """How they are made ready ahead."""
        self.suspensions = Suspensions(self._holding, backend, resolve, self.egress, self.events, self._bring_up)
        """Those that sleep."""
        self.attached = Attached(self.catalog, self._delete_if)
        """Those that end with their clients."""
        self.awake = Awake(self._holding, self.guests)
        """What keeps them from that."""
        suspend = self.suspensions.suspend
        self._idle = Idle(self.catalog, backend, self.events, self.guests.use, self.egress.flows, suspend)
        ends: dict[str, End] = {"stop": self.stop, "suspend": partial(suspend, by="ttl")}
        self._expiry = Expiry(self.catalog, self.events, self._holding, self._delete_if, ends)
        self._background = Background()

    async def open(self) -> None:
        """Make the directories, and start to clean up in the background.

        What an earlier server left unfinished is undone, and the VMs that run are adopted.
        """
        places.prepare(self._paths)
        self.snapshots.store.sweep()
        await self._warm.open()
        self._background.begin(self._warm.prepare(self._resolve), "prepare warm starts")
        self._background.begin(keep_guests(self.guests.connected, self.catalog.local_dir), "guests")
        self._background.begin(keep_short(self._paths), "console logs")
        self._background.begin(self._room.keep(), "room")
        self._background.begin(self.catalog.troubles.keep(self.events), "troubles")
        self._background.begin(self.egress.keep(), "network")
        self._background.begin(self.ports.keep(), "published ports")
        self._background.begin(self.changes.keep_secrets(), "secrets")
        self._background.begin(self._expiry.keep(), "sheds whose time is up")
        self._background.begin(self._idle.keep(), "sheds that are idle")
        self._background.begin(self.attached.sweep(), "sheds without their clients")
        self._background.begin(self._revivals.resume(), "sheds that start again")
        self._background.begin(self.prebuilds.keep(), "prebuilds")
        for name in places.leftovers(self._paths):
            self._background.begin(self._sweep(name), f"sweep {name}")
        for name in places.names(self._paths):
            folders = Folders(self._paths, name)
            if self._backend.liveness(folders.instance) is Liveness.OURS or is_asleep(folders):
                self._background.begin(self._adopt(name), f"adopt {name}")

    async def close(self) -> None:
        """Drop all links; the VMs run on."""
        ending = self._background.close(), self.setup.close(), self._warm.close(), self.ports.close_all()
        await asyncio.gather(*ending, return_exceptions=True)
        await asyncio.gather(*(entry.link.drop() for entry in self._names.values()))

    async def create(
        self, request: CreateShed, progress: Progress, origin: Origin | None = None, *, client: str | None = None
    ) -> View:
        """Make a shed, which begins with `origin`, and return it, ready, with the milliseconds of its steps.

        With a `client` of `attached` it ends with that.  On failure nothing is left.
        """
        origin = origin or await in_thread(self.snapshots.origin, request.from_snapshot, request.image)
        wanted = await in_thread(self.setup.opened, plan(request, self._settings, origin, client=client))
        record = wanted.record
        await in_thread(self.egress.check, record.egress_profiles)
        await in_thread(self.ports.check, record.name, record.published, record.open_host_ports)
        await in_thread(self.terms.secrets.check, record.secrets or ())
        entry = self._entry(record.name)
        if entry.doing == "create":
            raise ConflictError(
                f"shed {record.name!r} is being created", code="SHED_ALREADY_EXISTS", hint="choose another name"
            )
        async with (
            self._holding(record.name, "create") as (folders, link),
            self.ports.held(record.name, record.published) as ports,
        ):
            record, booted = await create(
                replace(wanted, record=record.with_ports(ports, record.open_host_ports)),
                folders,
                self._backend,
                self._resolve,
                self._ensure,
                equip=self.terms.equip,
                admission=self._admission,
                warm=self._warm,
                progress=progress,
            )
            link.set(booted.connection)
            await self.egress.begin(record, folders.instance, progress)
        self.events.tell("shed.created", record.name)
        self._look()
        failed = await self.setup.run(record, wanted, progress)
        made = self.catalog.done("create", record, progress, booted.way)
        return {**made, "failed": failed} if failed else made

    async def start(
        self, name: str, progress: Progress, *, cold: bool = False, force: bool = False, disk_only: bool = False
    ) -> View:
        """Start a stopped shed, or have a suspended one go on, and return it, ready, with timings.

        `cold` boots it in any case, `force` on a host short of memory, too.  With `disk_only` the disk of a suspended
        one is booted, and its memory dropped.

        Raises `ConflictError` (SHED_ALREADY_RUNNING).
        """
        async with self._holding(name, "start") as (folders, link):
            record = load(folders)
            if self._backend.liveness(folders.instance) is Liveness.OURS:
                raise ConflictError(
                    f"shed {name!r} is running already",
                    code="SHED_ALREADY_RUNNING",
                    hint=f"`shed exec {name} -- COMMAND`",
                )
            boot = self._bring_up.boot
            record, way = await boot(record, folders, link, progress, cold=cold, force=force, disk_only=disk_only)
        return self.catalog.done("start", record, progress, way)

    async def stop(self, name: str, progress: Progress) -> View:
        """Power a running shed off, or end its start, and return it.

        Raises `ConflictError` (SHED_ALREADY_STOPPED, SHED_BUSY).
        """
        entry = self._names.get(name)
        if entry is not None and entry.doing == "create":
            raise ConflictError(
                f"shed {name!r} is being created", code="SHED_BUSY", hint=f"`shed delete --force {name}` ends that"
            )
        await self.setup.stopping(name, progress)
        ended = self._end_starts(name, "it is being stopped", progress)
        async with self._holding(name, "stop") as (folders, link):
            record = load(folders)
            runs = self._backend.liveness(folders.instance) is not Liveness.NOT_OURS
            if not ended or record.wanted == "running" or runs:
                wait = self._settings.stop_timeout
                record = await lifecycle.stop(record, folders, self._backend, link, wait=wait, progress=progress)
                await self.egress.close(name)
                await self.ports.close(name)
        self.events.tell("shed.stopped", name)
        return self.catalog.done("stop", record, progress)

    async def undo_create(self, name: str, progress: Progress) -> None:
        """End the create of a shed, and wait until nothing is left of it.

        Raises `ConflictError` (SHED_COMPLETE) when the shed is made already, `NotFoundError` when there is neither.
        """
        entry = self._names.get(name)
        if entry is None or entry.doing != "create" or not self._end_starts(name, "it is being undone", progress):
            self.catalog.existing(name)
            raise ConflictError(
                f"shed {name!r} was made already", code="SHED_COMPLETE", hint=f"`shed delete {name}` removes it"
            )
        async with entry.lock:
            pass  # whoever made it has undone it by now

    async def delete(self, name: str, *, force: bool, progress: Progress) -> None:
        """Remove a shed; `force` first ends what brings it up, or a running one."""
        ended = force and self._end_starts(name, "it is being deleted", progress)
        async with self._holding(name, "delete", missing_ok=ended) as (folders, link):
            if folders.instance.exists():
                await self._delete(folders, link, progress, force=force)
            elif not ended:  # it was an unfinished create
                raise missing(name)
        self.events.tell("shed.deleted", name)

    async def _delete_if(self, name: str, over: Over, why: str) -> None:
        """Remove a shed if it is `over`.  Raises `NotFoundError`, and what a delete raises."""
        self._end_starts(name, why, progress := Progress())
        async with self._holding(name, "delete") as (folders, link):
            if not over(load(folders)):
                return
            await self._delete(folders, link, progress, force=True)
        self.events.tell("shed.deleted", name, why)

    async def _delete(self, folders: Folders, link: Link, progress: Progress, *, force: bool) -> None:
        await lifecycle.delete(folders, self._backend, link, force=force, progress=progress)
        await self.egress.close(folders.name)
        await self.ports.close(folders.name)

    async def update(self, name: str, wanted: UpdateShed, progress: Progress) -> View:
        """Change the processors, memory or disk of a shed and return it; see `shed.sheds.update`."""
        async with self._holding(name, "update") as (folders, link):
            record = await update(wanted, folders, self._backend, link, progress)
        self._look()
        return self.catalog.done("update", record, progress)

    async def rename(self, name: str, to: str) -> View:
        """Give a stopped shed another name and return it.

        Raises `ConflictError` (SHED_NOT_STOPPED, SHED_ALREADY_EXISTS, UPPER_EXISTS).
        """
        other = self.catalog.folders(to)
        async with contextlib.AsyncExitStack() as held:
            for one in sorted({name, to}):  # in the same order by all, so that nobody waits for each other
                await held.enter_async_context(self._holding(one, "rename", missing_ok=one == to))
            folders = self.catalog.existing(name)
            await in_thread(rename.check, folders, other, self._backend)
            await self.ports.close(name)  # of a VM that has ended by itself
            record = await in_thread(rename.rename, folders, other)
        self._look()
        return self.catalog.view(record)

    async def link(self, name: str, tell: Tell | None, *, autostart: bool, wakes: bool = False) -> Link:
        """Return the link to the shed `name`, which runs then.

        It is started when it is stopped, and `autostart`; a suspended one goes on also when `wakes`.  `tell` hears
        ``waiting`` when that takes more than a moment, and ``starting`` when the shed is started.  Raises
        `NotFoundError`, `UnavailableError` (SHED_NOT_RUNNING), and what a start raises.
        """
        entry = self._names.get(name)
        if entry is not None and entry.link.live and entry.doing in _LEAVES_ALONE:
            return entry.link
        if tell is not None:
            await tell("waiting")
        async with self._holding(name, "start") as (folders, link):
            record = load(folders)
            if self._backend.liveness(folders.instance) is Liveness.NOT_OURS:
                if not (autostart or (wakes and is_asleep(folders))):
                    raise UnavailableError(
                        f"shed {name!r} is not running", code="SHED_NOT_RUNNING", hint=f"`shed start {name}`"
                    )
                if tell is not None:
                    await tell("starting")
                await self._bring_up.boot(record, folders, link, Progress())
            else:
                await link.get()
        return link

    async def _attach(self, name: str) -> Connection:
        folders = self.catalog.folders(name)
        try:
            wait, equip = self._settings.start_timeout, self.terms.equip
            return await attach(self._backend, load(folders), folders, self._resolve, equip=equip, wait=wait)
        except BackendError as error:
            error.hint = error.hint or f"see `shed logs {name}`; `shed stop {name}` ends it, whatever it does"
            raise

    def _look(self) -> None:
        self._expiry.look()
        self._idle.look()

    async def _sweep(self, name: str) -> None:
        async with self._holding(name, "sweep"):
            pass  # taking hold of a name sweeps it

    async def _adopt(self, name: str) -> None:
        async with self._holding(name, "adopt") as (folders, link):
            await lifecycle.adopt(folders, self._backend, link, self.ports)

    def _end_starts(self, name: str, reason: str, progress: Progress) -> bool:
        """Have what brings `name` up give up, and say so; return whether there was anything."""
        entry = self._names.get(name)
        if entry is None or not entry.starts.end(reason):
            return False
        progress.phase("interrupt", "ending its start")
        return True

    @contextlib.asynccontextmanager
    async def _holding(self, name: str, doing: str, *, missing_ok: bool = False) -> AsyncIterator[tuple[Folders, Link]]:
        """Hold `name`, in this server and among servers, with nothing unfinished under it."""
        folders = self.catalog.folders(name)
        if doing not in {"create", "sweep"} and not (missing_ok or folders.instance.exists()):
            raise missing(name)
        entry = self._entry(name)
        with entry.starts.under_way(doing) if doing in _STARTS else contextlib.nullcontext():
            async with entry.lock:
                entry.doing = doing
                try:
                    with folders.hold():
                        await lifecycle.sweep(folders, self._backend, linked=entry.link.live)
                        yield folders, entry.link
                except ShedError as error:
                    log.warning("%s of shed %s failed: %s", doing, name, error)
                    begun = not isinstance(error, ConflictError) and error.code != "SHED_NOT_RUNNING"
                    if begun and (folders.instance.exists() or not missing_ok):
                        self.events.tell("shed.failed", name, f"{doing}: {error}")
                    raise
                finally:
                    entry.doing = ""

    def _entry(self, name: str) -> Entry:
        if name not in self._names:
            look = partial(self._revivals.look_after, name)
            link = Link(
                name, partial(self._attach, name), ended=lambda: self._background.begin(look(), f"end of {name}")
            )
            self._names[name] = Entry(name, link)
        return self._names[name]
