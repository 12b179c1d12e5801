"""Machines that wait to become sheds: restored from a template, brought through a start once, and paused.

::

    spares/.lock         flock: held by the server whose spares these are; never removed
    spares/NUMBER/       a spare's disks, and all that the backend keeps of its VM

A spare is of the default shape and serves every image of its boot kit.  It belongs to the server, unlike a shed's VM:
it ends with it, and what a server that was killed has left is ended by the next.  Spares are made when no shed has been
started for a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from shed.backends.base import Connection, Disk, Liveness, Machine
from shed.backends.interface import Backend, Spares, Template, Templates
from shed.config.paths import Paths
from shed.config.server import Settings
from shed.errors import BackendError, ConflictError, ShedError
from shed.fsutil import can_link, locked
from shed.guest.protocol import PORT_EXEC
from shed.sheds import upper
from shed.sheds.admission import Admission
from shed.sheds.agent import control
from shed.sheds.commands import BUSYBOX, run
from shed.threads import in_thread

log = logging.getLogger(__name__)
_LOCK = ".lock"
_CALM_SECONDS = 1.0
"""Without a start, before a spare is made: it would take the processor that a start wants."""
_PATIENCE_SECONDS = 3.0
"""After which a moment without one will do."""
_LOOK_SECONDS = 60.0
"""Between two looks at whether those that wait still live."""
_PAUSE, _LONGEST_PAUSE = 30.0, 3600.0
"""Seconds after one that could not be made; twice as many after each further one."""
_REHEARSAL_SECONDS = 30.0
_TO_GROW = 256 << 20
"""Bytes by which the disk of a rehearsal is larger than its file system."""


@dataclass(frozen=True, slots=True)
class Spare:
    """A paused machine, and what it was restored from."""

    machine: Machine
    template: Template


class Pool:
    """Keeps as many spares of the default shape as `settings` say, once `ask` has had a template made for them."""

    def __init__(
        self, paths: Paths, backend: Backend, settings: Settings, admission: Admission, ask: Callable[[Machine], None]
    ) -> None:
        self._folder = paths.spares
        self._sheds = paths.instances
        self._templates = paths.templates
        self._backend = backend
        self._settings = settings
        self._admission = admission
        self._size = settings.warm_spares if settings.warm_start else 0
        self._ask = ask
        self._like: Machine | None = None
        self._seen: tuple[Path, ...] = ()
        """The boot kit of the last start."""
        self._spares: list[Spare] = []
        self._starts = 0
        self._last_start = -_CALM_SECONDS
        self._calm = asyncio.Event()
        self._calm.set()
        self._wanted = asyncio.Event()
        self._numbers = itertools.count(1)
        self._held = contextlib.ExitStack()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """End what a server before us has left, and begin to keep spares.

        Two servers of one data folder have one pool.
        """
        try:
            self._held.enter_context(locked(self._folder / _LOCK, wait=False))
        except ConflictError:
            log.info("another server keeps the spares")
            return
        await self._sweep()
        offered = self._backend.capabilities
        if not self._size or offered.templates is None or offered.spares is None:
            return
        if can_link(self._folder, self._sheds):
            self._task = asyncio.create_task(self._fill(offered.templates, offered.spares), name="spares")
        else:
            log.warning(
                "no spares are kept: %s and %s are different mounts, and none could become a shed",
                self._folder,
                self._sheds,
            )

    async def close(self) -> None:
        """End all spares."""
        with self._held:
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
                self._spares.clear()
                await self._sweep()

    def like(self, machine: Machine) -> None:
        """Have spares that can become `machine` from now on, if it has the default shape.

        Those of another boot kit are given up only when it is asked for twice in a row.
        """
        shape = (machine.cpus, machine.memory_mb, machine.shares, machine.mounts)
        if shape == (self._settings.default_cpus, self._settings.default_memory_mb, (), None):
            kit = _kit(machine)
            if self._like is None or kit in (_kit(self._like), self._seen):
                self._like = machine
                self.look()
            self._seen = kit

    def look(self) -> None:
        """Something may have changed: see what there is to do."""
        self._wanted.set()

    def take(self, template: Template) -> Spare | None:
        """Return a spare that was restored from `template`, if there is one; it is the caller's then."""
        for spare in self._spares:
            if self._is_good(spare, template):
                self._spares.remove(spare)
                self.look()
                return spare
        return None

    @contextlib.contextmanager
    def standing_back(self) -> Iterator[None]:
        """Begin to make no spare, and remove none, meanwhile."""
        self._starts += 1
        self._calm.clear()
        try:
            yield
        finally:
            self._starts -= 1
            self._last_start = time.monotonic()
            if not self._starts:
                self._calm.set()

    async def _fill(self, templates: Templates, spares: Spares) -> None:
        pause = _PAUSE
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._wanted.wait()
            self._wanted.clear()
            try:
                while (template := await self._next(templates)) is not None:
                    await self._make(spares, template)
                    pause = _PAUSE
            except Exception as error:
                if isinstance(error, ShedError | OSError):
                    log.warning("no spare made: %s", error)
                else:
                    log.exception("making a spare failed")
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                self.look()

    async def _next(self, templates: Templates) -> Template | None:
        """Wait until nobody starts anything, and drop what is of no use.

        Return what to restore another spare from, if one is wanted.
        """
        if self._like is None:
            return None
        await self._calmed()
        template = await in_thread(templates.find, self._like)
        if template is None:
            self._ask(self._like)
        self._spares = [spare for spare in self._spares if template is not None and self._is_good(spare, template)]
        await self._calm.wait()
        await self._sweep()
        return template if len(self._spares) < self._size else None

    async def _calmed(self) -> None:
        patient = time.monotonic() + _PATIENCE_SECONDS
        while self._starts or time.monotonic() < min(patient, self._last_start + _CALM_SECONDS):
            await self._calm.wait()
            await asyncio.sleep(min(patient, self._last_start + _CALM_SECONDS) - time.monotonic())

    def _is_good(self, spare: Spare, template: Template) -> bool:
        return spare.template == template and self._backend.liveness(spare.machine.state_dir) is Liveness.OURS

    async def _make(self, spares: Spares, template: Template) -> None:
        assert self._like is not None
        like, folder = self._like, self._folder / str(next(self._numbers))
        disk, runtime = folder / "upper.ext4", like.disks[-1]
        machine = replace(
            like, name=f"spare-{folder.name}", state_dir=folder, disks=(Disk(disk, read_only=False), runtime, runtime)
        )
        await self._admission.check_idle("a spare", machine.memory_mb)
        await in_thread(self._make_upper, runtime.path, disk)
        began = time.monotonic()
        await spares.make(machine, template, _rehearse, timeout=self._settings.start_timeout)
        self._spares.append(Spare(machine, template))
        log.info(
            "spare %s made in %.1f s, there are %d of %d",
            folder.name,
            time.monotonic() - began,
            len(self._spares),
            self._size,
        )

    def _make_upper(self, runtime: Path, disk: Path) -> None:
        size = self._settings.default_upper_size
        upper.make_upper(upper.template(self._templates, runtime, size), disk, size + _TO_GROW)

    async def _sweep(self) -> None:
        """End and remove what is not a spare of this server.

        That is: spares of a server that was killed, and what is left of spares that became sheds.
        """
        kept = {spare.machine.state_dir for spare in self._spares}
        left = [path for path in self._folder.iterdir() if path.is_dir() and path not in kept]
        await asyncio.gather(*map(self._remove, left))

    async def _remove(self, folder: Path) -> None:
        try:
            await self._backend.kill(folder)
            await in_thread(shutil.rmtree, folder)
        except (ShedError, OSError) as error:
            log.warning("spare %s stays: %s", folder.name, error)


def _kit(machine: Machine) -> tuple[Path, ...]:
    return (machine.kernel, machine.initrd, machine.disks[-1].path)


async def _rehearse(connection: Connection) -> None:
    """Bring the agent through all that a create and its first command ask of it.

    Raises `BackendError` when it does not succeed.
    """
    await control(connection, "rehearse", wait=_REHEARSAL_SECONDS)
    done = await run(await connection.open(PORT_EXEC), [BUSYBOX, "true"], wait=_REHEARSAL_SECONDS)
    if done.code:
        raise BackendError(f"the rehearsal of a spare failed: {done.error or done.stderr}", code="NOT_REHEARSED")
