"""Admission: whether this host can carry one more VM.

It is asked before a start, so that running VMs keep what they were promised.

A VM is promised its whole memory, and takes it bit by bit.  All VMs of the server together (sheds, spares, one that is
being saved, those that are on their way) may be promised `memory_overcommit` times what they have and what the host has
left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from shed.backends.base import Liveness
from shed.backends.interface import Backend
from shed.budget import Reserve
from shed.config.paths import Paths
from shed.config.server import Settings
from shed.errors import ShedError, UnavailableError
from shed.sheds import folders, headroom, metadata
from shed.sizes import format_size
from shed.threads import in_thread

log = logging.getLogger(__name__)
_FORCE = "stop a shed that is not needed: shed stop NAME; or go on all the same: --force of create and start"


class HostBusyError(UnavailableError):
    """The host cannot carry another VM now."""

    code = "HOST_BUSY"


@dataclass(frozen=True, slots=True)
class Load:
    """What runs: VMs of sheds, the MiB that all VMs were promised, and the bytes that they have."""

    running: int
    promised_mb: int
    held: int


class Admission:
    """Lets VMs start while the host can carry them, as the `limits` of `settings` say."""

    def __init__(self, paths: Paths, backend: Backend, settings: Settings) -> None:
        self._paths = paths
        self._backend = backend
        self._settings = settings
        self.space = Reserve(paths.data, settings.start_reserve, setting="limits.start_reserve")
        """What must be free on the disk for a VM to start."""
        self._coming: dict[str, int] = {}
        """MiB of those that are on their way, by name."""
        self._turn = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def admitted(
        self, name: str, memory_mb: int, *, new: bool = False, force: bool = False
    ) -> AsyncIterator[None]:
        """Count a VM of `memory_mb` called `name` as promised meanwhile, in which it is started.

        `new` when its shed is made, too.

        Raises `UnavailableError` (TOO_MANY_SHEDS), `StorageError` (DISK_RESERVE) and, unless `force`, `HostBusyError`.
        """
        async with self._turn:  # two that fit one by one need not fit together
            await in_thread(self._check, name, memory_mb, new=new, force=force)
            self._coming[name] = memory_mb
        try:
            yield
        finally:
            del self._coming[name]

    async def check_idle(self, what: str, memory_mb: int) -> None:
        """Raise `HostBusyError` or `StorageError` when there is no room for a VM that nobody waits for."""
        async with self._turn:
            load = await in_thread(self.load)
            await in_thread(self._check_host, what, memory_mb, load)

    def load(self, *, without: str = "") -> Load:
        """Return what runs, or is on its way, but for the shed `without`."""
        coming = self._coming.copy()  # the event loop changes it meanwhile
        coming.pop(without, None)
        counted = {self._paths.instances / name for name in (*coming, without) if name}
        running, promised, held = len(coming), sum(coming.values()), 0
        templates = self._backend.capabilities.templates
        saving = {} if templates is None else templates.being_made()
        for folder in (*self._folders(), *saving):
            if self._backend.liveness(folder) is Liveness.NOT_OURS:
                continue
            with contextlib.suppress(ShedError):
                held += headroom.held(self._backend.pid(folder) or 0)
            if folder not in counted:
                running += folder.parent == self._paths.instances
                promised += saving.get(folder) or self._promise(folder)
        return Load(running, promised, held)

    def _folders(self) -> Iterator[Path]:
        """Yield the folder of every machine of sheds and spares that may run."""
        for name in folders.names(self._paths):
            yield self._paths.instances / name
        yield from self._paths.spares.glob("[0-9]*")

    def _promise(self, folder: Path) -> int:
        """Return the MiB that the machine of `folder` was promised; the default where that is not known."""
        with contextlib.suppress(ShedError):  # damaged, or a spare
            if folder.parent == self._paths.instances:
                return metadata.load(folder).memory_mb
        return self._settings.default_memory_mb

    def _check(self, name: str, memory_mb: int, *, new: bool, force: bool) -> None:
        settings = self._settings
        if new and (count := len({*folders.names(self._paths), *self._coming.copy()} - {name})) >= settings.max_sheds:
            why = f"there are {count} sheds, and {settings.max_sheds} may be (limits.max_sheds)"
            raise UnavailableError(why, code="TOO_MANY_SHEDS", hint="delete one that is not needed: shed delete NAME")
        load = self.load(without=name)
        if load.running >= settings.max_running:
            why = f"{load.running} sheds run, and {settings.max_running} may (limits.max_running)"
            raise UnavailableError(why, code="TOO_MANY_SHEDS", hint="stop one that is not needed: shed stop NAME")
        try:
            self._check_host(f"shed {name!r}", memory_mb, load)
        except HostBusyError as error:
            if not force:
                raise
            log.warning("%s; it is started by force", error)

    def _check_host(self, what: str, memory_mb: int, load: Load) -> None:
        self.space.check()
        self.check_memory(what, memory_mb, load)
        if trouble := self._pressed():
            raise _busy(what, trouble)

    def check_memory(self, what: str, memory_mb: int, load: Load) -> None:
        """Raise `HostBusyError` when a VM of `memory_mb` cannot be promised its memory beside `load`."""
        if trouble := self._too_little_memory(memory_mb, load):
            raise _busy(what, trouble)

    def _too_little_memory(self, memory_mb: int, load: Load) -> str:
        try:
            found = headroom.memory()
        except OSError as error:
            log.warning("cannot tell how much memory is free: %s", error)
            return ""
        reserve, factor = self._settings.memory_reserve, self._settings.memory_overcommit
        if found.available < reserve:
            return (
                f"{format_size(found.available)} of its memory are free, {format_size(reserve)} are to stay free "
                "(limits.memory_reserve)"
            )
        wanted, room = (
            (load.promised_mb + memory_mb) << 20,
            int(factor * (found.available + found.swap_free + load.held)),
        )
        if wanted <= room:
            return ""
        return (
            f"its VMs would be promised {format_size(wanted)} of memory, and may be promised {format_size(room)}: "
            f"{factor:g} times (limits.memory_overcommit) the {format_size(found.available + found.swap_free)} that "
            "are free "
            f"and the {format_size(load.held)} that they have"
        )

    def _pressed(self) -> str:
        most = {
            "memory": self._settings.memory_pressure,
            "io": self._settings.io_pressure,
            "cpu": self._settings.cpu_pressure,
        }
        for resource, limit in most.items():
            if limit and (found := headroom.pressure(resource)) is not None and found >= limit:
                return (
                    f"its programs wait for {resource} {found:.0f} % of the time, and may {limit} % "
                    f"(limits.{resource}_pressure)"
                )
        return ""


def _busy(what: str, trouble: str) -> HostBusyError:
    return HostBusyError(f"this host cannot carry {what} now: {trouble}", hint=_FORCE)
