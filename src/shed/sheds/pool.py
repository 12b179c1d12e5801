"""Machines that wait to become sheds: restored from a template, brought through a start once, and paused.

::

    spares/.lock         flock: held by the server whose spares these are; never removed
    spares/NUMBER/       a spare's disks, and all that the backend keeps of its VM

A spare is of the default shape and serves every image.  It belongs to the server, unlike a shed's VM: it ends with it, and what a server
that was killed has left is ended by the next.  Spares are made when no shed has been started for a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from shed.backends.base import Backend, Connection, Disk, Liveness, Machine, Template
from shed.config.paths import Paths
from shed.config.server import Settings
from shed.errors import ConflictError, ShedError
from shed.fsutil import locked, storage_errors
from shed.guest.protocol import PORT_EXEC
from shed.sheds import upper
from shed.sheds.agent import control
from shed.sheds.commands import run
from shed.sheds.templates import make
from shed.sheds.threads import in_thread

log = logging.getLogger(__name__)
_LOCK = ".lock"
_CALM_SECONDS = 1.0
"""Without a start, before a spare is made: it would take the processor that a start wants."""
_PAUSE, _SHORT_PAUSE = 60.0, 2.0
"""Seconds from one that could not be made to the next attempt; the short one when somebody else is making the template."""
_REHEARSAL_SECONDS = 30.0
_BUSYBOX = "/run/shed-runtime/bin/busybox"
"""A command that every guest has."""


@dataclass(frozen=True, slots=True)
class Spare:
    """A paused machine, and what it was restored from."""

    machine: Machine
    template: Template


class Pool:
    """Keeps as many spares of the default shape as `settings` say."""

    def __init__(self, paths: Paths, backend: Backend, settings: Settings) -> None:
        self._folder = paths.spares
        self._templates = paths.templates
        self._backend = backend
        self._settings = settings
        self._size = settings.warm_spares if settings.warm_start else 0
        self._like: Machine | None = None
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
        """End what a server before us has left, and begin to keep spares.  Two servers of one data folder have one pool."""
        try:
            self._held.enter_context(locked(self._folder / _LOCK, wait=False))
        except ConflictError:
            log.info("another server keeps the spares")
            return
        await self._sweep()
        if self._size:
            self._task = asyncio.create_task(self._fill(), name="spares")

    async def close(self) -> None:
        """End all spares."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._spares.clear()
            await self._sweep()
        self._held.close()

    def like(self, machine: Machine) -> None:
        """Have spares that can become `machine` from now on, if it has the default shape."""
        shape = (machine.cpus, machine.memory_mb, machine.shares)
        if shape == (self._settings.default_cpus, self._settings.default_memory_mb, ()):
            self._like = machine
            self._wanted.set()

    def take(self, template: Template) -> Spare | None:
        """Return a spare that was restored from `template`, if there is one; it is the caller's then."""
        for spare in self._spares:
            if spare.template == template and self._backend.liveness(spare.machine.state_dir) is Liveness.OURS:
                self._spares.remove(spare)
                self._wanted.set()
                return spare
        return None

    @contextlib.contextmanager
    def standing_back(self) -> Iterator[None]:
        """Make no spare, and remove none, meanwhile."""
        self._starts += 1
        self._calm.clear()
        try:
            yield
        finally:
            self._starts -= 1
            self._last_start = time.monotonic()
            if not self._starts:
                self._calm.set()

    async def _fill(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                while await self._is_short():
                    await self._make()
            except ConflictError as error:
                log.info("no spare made yet: %s", error)
                await asyncio.sleep(_SHORT_PAUSE)
                self._wanted.set()
            except (ShedError, OSError) as error:
                log.warning("no spare made: %s", error)
                await asyncio.sleep(_PAUSE)
                self._wanted.set()
            except Exception:
                log.exception("making a spare failed")
                await asyncio.sleep(_PAUSE)
                self._wanted.set()

    async def _is_short(self) -> bool:
        """Wait until nobody starts anything, and drop what is of no use; then tell whether a spare is to be made."""
        while (rest := self._last_start + _CALM_SECONDS - time.monotonic()) > 0 or self._starts:
            await self._calm.wait()
            await asyncio.sleep(rest)
        if self._like is None:
            return False
        template = await in_thread(self._backend.template, self._like)
        self._spares = [
            spare
            for spare in self._spares
            if spare.template == template and self._backend.liveness(spare.machine.state_dir) is Liveness.OURS
        ]
        if not self._starts:
            await self._sweep()
        return len(self._spares) < self._size

    async def _make(self) -> None:
        assert self._like is not None
        like = self._like
        template = await make(self._backend, like, wait=self._settings.start_timeout)
        folder = self._folder / str(next(self._numbers))
        disk = folder / "upper.ext4"
        runtime = like.disks[-1]
        machine = replace(like, name=f"spare-{folder.name}", state_dir=folder, disks=(Disk(disk, read_only=False), runtime, runtime))
        await in_thread(self._make_upper, runtime.path, disk)
        began = time.monotonic()
        await self._backend.make_spare(machine, template, _rehearse, timeout=self._settings.start_timeout)
        self._spares.append(Spare(machine, template))
        log.info("spare %s made in %.1f s, there are %d of %d", folder.name, time.monotonic() - began, len(self._spares), self._size)

    def _make_upper(self, runtime: Path, disk: Path) -> None:
        size = self._settings.default_upper_size
        upper.make_upper(upper.template(self._templates, runtime, size), disk, size)

    async def _sweep(self) -> None:
        """End and remove what is no spare of ours: those of a server that was killed, and what those have left that are sheds now."""
        kept = {spare.machine.state_dir for spare in self._spares}
        for folder in self._folder.iterdir():
            if folder.is_dir() and folder not in kept:
                try:
                    await self._backend.kill(folder)
                    with storage_errors(folder):
                        await in_thread(shutil.rmtree, folder)
                except ShedError as error:
                    log.warning("spare %s stays: %s", folder.name, error)


async def _rehearse(connection: Connection) -> None:
    """Bring the agent through all that a create and its first command ask of it."""
    await control(connection, "rehearse", wait=_REHEARSAL_SECONDS)
    await run(await connection.open(PORT_EXEC), [_BUSYBOX, "true"], wait=_REHEARSAL_SECONDS)
