"""All sheds of one server: who may work on which name, what state each is in, and the live links to their agents.

The VMs do not belong to this object.  It can be closed, or killed, at any time; the next one finds every VM by its
record, links to its agent again, and undoes creates that were cut short.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

from shed.api.sheds import CreateShed
from shed.backends.base import Backend, Connection, Liveness, Stream
from shed.config.paths import Paths
from shed.config.server import Settings
from shed.errors import BackendError, ConflictError, ConnectError, NotFoundError, ShedError, UnavailableError
from shed.guest.protocol import PORT_EXEC, PORT_LISTEN, PORT_PROXY
from shed.names import check_shed_name
from shed.progress import Progress
from shed.sheds import folders as places
from shed.sheds import lifecycle, metadata
from shed.sheds.admission import Admission
from shed.sheds.agent import control, read_line
from shed.sheds.boot import attach
from shed.sheds.clock import keep_clocks
from shed.sheds.console import ConsoleStream, last_lines
from shed.sheds.consoles import keep_short
from shed.sheds.create import Ensure, Resolve, create, plan
from shed.sheds.folders import Folders
from shed.sheds.link import Link
from shed.sheds.room import Room
from shed.sheds.starts import Starts
from shed.sheds.view import Shed, view, view_of_damaged
from shed.sheds.warm import WarmStart

log = logging.getLogger(__name__)
Tell = Callable[[str], Awaitable[None]]
_ADOPT_TIMEOUT = 15.0
_HEALTH_TIMEOUT = 3.0
_DIAL_TIMEOUT = 25.0
"""Seconds for the guest to say whether it has connected; it tries both loopback addresses for ten at most."""
_STARTS = frozenset({"create", "start", "adopt"})
"""What may wait for a guest for minutes, so that a stop or a forced delete ends it."""


class _Name:
    """What one server knows of one name beyond the disk: who works on it, what brings it up, and the link to its agent."""

    def __init__(self, name: str, link: Link) -> None:
        self.lock = asyncio.Lock()
        self.doing = ""
        self.starts = Starts(name)
        self.link = link


class Manager:
    """The sheds below `paths`, run by `backend`, with images found by `resolve`, once `ensure`, if given, has had them pulled."""

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
        self._backend = backend
        self._resolve = resolve
        self._ensure = ensure
        self._settings = settings or Settings()
        self._admission = Admission(paths, backend, self._settings)
        self._warm = WarmStart(paths, backend, self._settings, self._admission)
        self._room = Room(paths, backend)
        self._names: dict[str, _Name] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def backend(self) -> str:
        """The backend's name."""
        return self._backend.name

    async def open(self) -> None:
        """Make the folders; then, in the background, undo what an earlier server left unfinished and adopt the VMs that run."""
        places.prepare(self._paths)
        await self._warm.open()
        self._background(self._warm.prepare(self._resolve), "prepare warm starts")
        self._background(keep_clocks(self._guests), "clocks")
        self._background(keep_short(self._paths), "console logs")
        self._background(self._room.keep(), "room")
        for name in places.leftovers(self._paths):
            self._background(self._sweep(name), f"sweep {name}")
        for name in places.names(self._paths):
            if self._backend.liveness(Folders(self._paths, name).instance) is Liveness.OURS:
                self._background(self._adopt(name), f"adopt {name}")

    async def close(self) -> None:
        """Drop all links; the VMs run on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, self._warm.close(), return_exceptions=True)
        await asyncio.gather(*(entry.link.drop() for entry in self._names.values()))

    async def create(self, request: CreateShed, progress: Progress) -> Shed:
        """Make a shed and return it, ready, with the timings of its steps in milliseconds.

        On failure nothing is left.
        """
        wanted = plan(request, self._settings)
        entry = self._entry(wanted.name)
        if entry.doing == "create":
            raise ConflictError(
                f"shed {wanted.name!r} is being created", code="SHED_ALREADY_EXISTS", hint="choose another name"
            )
        async with self._holding(wanted.name, "create") as (folders, link):
            record, booted = await create(
                wanted,
                folders,
                self._backend,
                self._resolve,
                self._ensure,
                admission=self._admission,
                warm=self._warm,
                progress=progress,
            )
            link.set(booted.connection)
        return self._done("create", record, progress, booted.way)

    async def start(self, name: str, progress: Progress, *, cold: bool = False, force: bool = False) -> Shed:
        """Start a stopped shed and return it, ready, with timings.

        `cold` boots it in any case, `force` on a host short of memory, too.

        Raises `ConflictError` (SHED_ALREADY_RUNNING).
        """
        async with self._holding(name, "start") as (folders, link):
            record = self._load(folders)
            if self._backend.liveness(folders.instance) is Liveness.OURS:
                raise ConflictError(
                    f"shed {name!r} is running already",
                    code="SHED_ALREADY_RUNNING",
                    hint=f"`shed exec {name} -- COMMAND`",
                )
            record, way = await self._boot(record, folders, link, progress, cold=cold, force=force)
        return self._done("start", record, progress, way)

    async def stop(self, name: str, progress: Progress) -> Shed:
        """Power a running shed off, or end its start, and return it.

        Raises `ConflictError` (SHED_ALREADY_STOPPED, SHED_BUSY).
        """
        entry = self._names.get(name)
        if entry is not None and entry.doing == "create":
            raise ConflictError(
                f"shed {name!r} is being created", code="SHED_BUSY", hint=f"`shed delete --force {name}` ends that"
            )
        ended = self._end_starts(name, "it is being stopped", progress)
        async with self._holding(name, "stop") as (folders, link):
            record = self._load(folders)
            if (
                not ended
                or record.wanted == "running"
                or self._backend.liveness(folders.instance) is not Liveness.NOT_OURS
            ):
                wait = self._settings.stop_timeout
                record = await lifecycle.stop(record, folders, self._backend, link, wait=wait, progress=progress)
        return self._done("stop", record, progress)

    async def delete(self, name: str, *, force: bool, progress: Progress) -> None:
        """Remove a shed; `force` first ends what brings it up, or a running one."""
        ended = force and self._end_starts(name, "it is being deleted", progress)
        async with self._holding(name, "delete", missing_ok=ended) as (folders, link):
            if folders.instance.exists():
                await lifecycle.delete(folders, self._backend, link, force=force, progress=progress)
            elif not ended:  # it was an unfinished create
                raise self._missing(name)

    def get(self, name: str) -> Shed:
        """Return the shed `name`.  Raises `NotFoundError`, `DamagedError`."""
        folders = self._folders(name)
        marker = metadata.load_marker(folders.instance)
        if marker is not None:
            entry = self._names.get(name)
            if entry is None or entry.doing != "create":  # cut short: it never existed, and is about to go
                raise self._missing(name)
            return {
                "name": name,
                "status": "starting",
                "created_at": marker.created_at,
                "image": marker.image,
                "image_digest": marker.digest,
                "backend": self._backend.name,
            }
        return self._view(self._load(folders))

    def list(self) -> tuple[list[Shed], list[str]]:
        """Return all sheds, also those whose records cannot be read, and warnings of what could not be looked at."""
        sheds, warnings = [], []
        for name in places.names(self._paths):
            try:
                sheds.append(self.get(name))
            except NotFoundError:
                continue
            except metadata.DamagedError as error:
                sheds.append(view_of_damaged(name, error))
            except ShedError as error:
                warnings.append(error.message)
        return sheds, warnings

    def console_log(self, name: str, *, lines: int | None = None) -> bytes:
        """Return the end of what the VM's console has said, the last `lines` of it."""
        return last_lines(self._existing(name).console_tail()[0], lines)

    def follow_console(self, name: str, *, lines: int | None = None) -> Stream:
        """Return what `console_log` does, and then what the console says, until the shed is deleted."""
        folders = self._existing(name)
        tail, position = folders.console_tail()
        return ConsoleStream(folders.console, last_lines(tail, lines), position)

    def machines(self) -> dict[int, str]:
        """Return the names of sheds by the recorded process ids of their VMs, whether or not their agents answer."""
        found = ((name, self._backend.pid(Folders(self._paths, name).instance)) for name in places.names(self._paths))
        return {process: name for name, process in found if process is not None}

    async def health(self, name: str) -> dict[str, Any]:
        """Return what the agent of a running shed says of itself.

        Raises `ConflictError`, and `BackendError` when it does not answer.
        """
        entry = self._names.get(name)
        if entry is None or not entry.link.live:
            raise self._not_running(name)
        return await control(await entry.link.get(), "health", wait=_HEALTH_TIMEOUT)

    def look_at_workspace(self, name: str, after: str | None) -> dict[str, Any]:
        """Return what in the shed's workspace may run on the host; see `shed.sheds.leftovers`.

        Raises `UsageError` when it has none.
        """
        from shed.sheds import leftovers  # noqa: PLC0415  few ask

        return leftovers.view(self._load(self._folders(name)), after)

    async def open_exec(self, name: str, tell: Tell | None = None, *, autostart: bool = True) -> Stream:
        """Open a stream for one command in the shed `name`, starting it when it is stopped, unless `autostart` is false.

        `tell` hears ``waiting`` when that takes more than a moment, and ``starting`` when the shed is started.
        """
        return await self._open(name, PORT_EXEC, tell, autostart=autostart)

    async def open_port(self, name: str, port: int) -> Stream:
        """Open a stream to the guest's TCP `port`.

        Raises `ConnectError` when nothing listens there, or the guest does not say so in time; `UnavailableError`
        (SHED_NOT_RUNNING).
        """
        what = f"port {port} of shed {name!r}"
        try:
            async with asyncio.timeout(_DIAL_TIMEOUT):
                stream = await self._open(name, PORT_PROXY, None, autostart=False)
                try:
                    await stream.write(b"CONNECT %d\n" % port)
                    answer = await read_line(stream)
                    if answer == "OK":
                        return stream
                except BaseException:
                    stream.close()
                    raise
        except TimeoutError:
            raise ConnectError(f"{what}: no answer within {_DIAL_TIMEOUT:g} s", hint=f"`shed logs {name}`") from None
        except BackendError as error:  # the VM, or its agent, has just gone
            raise ConnectError(f"{what}: {error.message}", hint=error.hint) from None
        stream.close()
        why = answer.removeprefix("ERR ").removeprefix(f"port {port}: ")
        raise ConnectError(f"{what}: {why}", hint=f"is something listening there? `shed exec {name} -- ss -ltn`")

    async def open_listener(self, name: str, line: str, *, autostart: bool) -> tuple[Stream, str]:
        """Ask the guest's `shed.guest.listen` for something, in one line.

        Return the stream and the answer's words behind OK.

        Raises `ConnectError` with the guest's reason.
        """
        stream = await self._open(name, PORT_LISTEN, None, autostart=autostart)
        try:
            async with asyncio.timeout(_DIAL_TIMEOUT):
                await stream.write(f"{line}\n".encode())
                answer = await read_line(stream)
            if answer.split(" ")[0] != "OK":
                raise ConnectError(f"shed {name!r}: {answer.removeprefix('ERR ')}", hint="")
        except TimeoutError:
            stream.close()
            raise ConnectError(
                f"shed {name!r}: no answer within {_DIAL_TIMEOUT:g} s", hint=f"`shed logs {name}`"
            ) from None
        except BaseException:
            stream.close()
            raise
        return stream, answer.removeprefix("OK").strip()

    async def _open(self, name: str, port: int, tell: Tell | None, *, autostart: bool) -> Stream:
        link = await self._link(name, tell, autostart=autostart)
        connection: Connection | None = None
        try:
            connection = await link.get()
            return await connection.open(port)
        except BackendError as error:  # the VM, or the connection, died a moment ago
            log.info("shed %s: %s; trying once more", name, error)
            if (
                connection is not None and link.connection is connection
            ):  # else somebody who also saw it has made another
                await link.drop(error)
        link = await self._link(name, tell, autostart=autostart)
        return await (await link.get()).open(port)

    async def _link(self, name: str, tell: Tell | None, *, autostart: bool) -> Link:
        entry = self._names.get(name)
        if entry is not None and entry.link.live and not entry.doing:
            return entry.link
        if tell is not None:
            await tell("waiting")
        async with self._holding(name, "start") as (folders, link):
            record = self._load(folders)
            if self._backend.liveness(folders.instance) is Liveness.NOT_OURS:
                if not autostart:
                    raise UnavailableError(
                        f"shed {name!r} is not running", code="SHED_NOT_RUNNING", hint=f"`shed start {name}`"
                    )
                if tell is not None:
                    await tell("starting")
                await self._boot(record, folders, link, Progress())
            else:
                await link.get()
        return link

    async def _boot(
        self,
        record: metadata.Record,
        folders: Folders,
        link: Link,
        progress: Progress,
        *,
        cold: bool = False,
        force: bool = False,
    ) -> tuple[metadata.Record, str]:
        await link.drop()
        record, booted = await lifecycle.start(
            record,
            folders,
            self._backend,
            self._resolve,
            None if cold else self._warm,
            admission=self._admission,
            force=force,
            wait=self._settings.start_timeout,
            progress=progress,
        )
        link.set(booted.connection)
        return record, booted.way

    async def _attach(self, name: str) -> Connection:
        folders = self._folders(name)
        try:
            return await attach(self._backend, self._load(folders), folders, wait=self._settings.start_timeout)
        except BackendError as error:
            error.hint = error.hint or f"see `shed logs {name}`; `shed stop {name}` ends it, whatever it does"
            raise

    def _guests(self) -> dict[str, Connection]:
        return {name: link for name, entry in self._names.items() if (link := entry.link.connection) is not None}

    async def _sweep(self, name: str) -> None:
        async with self._holding(name, "sweep"):
            pass  # taking hold of a name sweeps it

    async def _adopt(self, name: str) -> None:
        async with self._holding(name, "adopt") as (folders, link):
            if self._backend.liveness(folders.instance) is Liveness.OURS:
                async with asyncio.timeout(_ADOPT_TIMEOUT):
                    await link.get()
                log.info("shed %s: adopted", name)

    def _background(self, work: Coroutine[Any, Any, None], what: str) -> None:
        async def logged() -> None:
            try:
                await work
            except (ShedError, TimeoutError) as error:
                log.warning("%s: %s", what, str(error) or "no answer in time; tried again when it is needed")
            except Exception:
                log.exception("%s failed", what)

        task = asyncio.create_task(logged(), name=what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: work.close())  # when it was cancelled before it began

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
        folders = self._folders(name)
        if doing not in {"create", "sweep"} and not (missing_ok or folders.instance.exists()):
            raise self._missing(name)
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
                    raise
                finally:
                    entry.doing = ""

    def _entry(self, name: str) -> _Name:
        if name not in self._names:
            self._names[name] = _Name(name, Link(name, lambda: self._attach(name)))
        return self._names[name]

    def _folders(self, name: str) -> Folders:
        return Folders(self._paths, check_shed_name(name))

    def _existing(self, name: str) -> Folders:
        folders = self._folders(name)
        if not folders.instance.exists():
            raise self._missing(name)
        return folders

    def _load(self, folders: Folders) -> metadata.Record:
        if not folders.instance.exists():
            raise self._missing(folders.name)
        return metadata.load(folders.instance)

    def _done(self, what: str, record: metadata.Record, progress: Progress, way: str = "") -> Shed:
        timings = {name: round(spent, 1) for name, spent in progress.finish().items()}
        steps = " ".join(f"{name}={spent:.0f}" for name, spent in timings.items())
        total = sum(timings.values())
        boot = f" boot={way}" if way else ""
        log.info(
            "timing: %s name=%s backend=%s%s total=%.0fms %s", what, record.name, record.backend, boot, total, steps
        )
        return {**self._view(record), **({"boot": way} if way else {}), "timings": timings}

    def _missing(self, name: str) -> NotFoundError:
        return NotFoundError(
            f"there is no shed {name!r}", code="SHED_NOT_FOUND", hint="`shed list` shows what there is"
        )

    def _not_running(self, name: str) -> ConflictError:
        return ConflictError(f"shed {name!r} is not running", code="SHED_ALREADY_STOPPED", hint=f"`shed start {name}`")

    def _view(self, record: metadata.Record) -> Shed:
        entry = self._names.get(record.name)
        starting = entry is not None and entry.doing == "start" and not entry.link.live
        misuse, waits = entry.link.misuse if entry is not None else "", self._room.waits(record.name)
        folders, space = self._folders(record.name), self._admission.space
        return view(record, folders, self._backend, space, starting=starting, misuse=misuse, waits=waits)
