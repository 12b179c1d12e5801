"""A shed that sleeps: its memory on the disk and no VM, and later the same shed, where it was."""

from __future__ import annotations

import asyncio
import logging
import shutil
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from shed.backends.base import Connection, Liveness
from shed.backends.interface import Backend
from shed.errors import BackendError, ConflictError, ShedError, StorageError, UnavailableError
from shed.progress import Progress
from shed.sheds import asleep, boot, headroom
from shed.sheds.agent import control
from shed.sheds.boot import Booted, Equip
from shed.sheds.clock import set_clock_quietly
from shed.sheds.folders import Folders
from shed.sheds.image_settings import ImageSettings
from shed.sheds.link import Link
from shed.sheds.metadata import Record
from shed.sheds.moments import FREEZE, RESERVE, moments_of, thaw
from shed.sizes import format_size
from shed.threads import in_thread, to_the_end

if TYPE_CHECKING:
    from shed.images.resolve import BootImage

log = logging.getLogger(__name__)
_NOTICES = 0.05
"""Seconds for the agent to notice that we have hung up.  What is kept then waits for a connection, and answers the
first one: else it would have to notice that when it goes on.
"""


async def suspend(
    record: Record, image: BootImage, folders: Folders, backend: Backend, link: Link, *, by: str, progress: Progress
) -> None:
    """Put what is in the memory of a running shed on its disk, and end its VM; `by` is one of `asleep.BY`.

    It is suspended then; if anything fails before, it runs on.  Raises `ConflictError` (CANNOT_SUSPEND) and
    `StorageError` before anything is touched, and `BackendError`.
    """
    if record.shares:
        raise ConflictError(
            f"shed {record.name!r} shares a folder of the host, with which it cannot be suspended",
            code="CANNOT_SUSPEND",
            hint=f"stop it instead: shed stop {record.name}; a shed without --local-dir and --mount can be suspended",
        )
    moments = moments_of(backend)
    shape = await in_thread(moments.shape, folders.instance)
    vm = replace(boot.machine(record, image, folders), cpus=shape.cpus, memory_mb=shape.memory_mb)
    await in_thread(_check_room, folders, headroom.held(backend.pid(folders.instance) or 0))
    connection = await link.get()
    try:
        memory = await in_thread(asleep.begin, folders)
        progress.phase("freeze", "the shed stands still")
        await _freeze(record.name, connection)
        await link.drop()
        await asyncio.sleep(_NOTICES)
        progress.phase("memory", "writing its memory to the disk")
        await moments.suspend(vm, memory, partial(asleep.commit, folders, shape, by))
    finally:
        await to_the_end(_end(folders, backend, link, progress))


async def _freeze(name: str, connection: Connection) -> None:
    """Have a shed stand still whose agent can have it go on later.  Raises `ConflictError` (CANNOT_SUSPEND)."""
    try:
        wakes = (await control(connection, "freeze", wait=FREEZE)).get("wakes")
    except BackendError as error:
        if error.code != "UNKNOWN_OPERATION":
            raise
        wakes = False
    if wakes is not True:
        raise ConflictError(
            f"shed {name!r} cannot be suspended: its agent is that of an earlier version",
            code="CANNOT_SUSPEND",
            hint=f"start it anew first: shed restart {name}",
        )


async def _end(folders: Folders, backend: Backend, link: Link, progress: Progress) -> None:
    """End the VM of a shed that is suspended, or have it go on when that has failed."""
    if asleep.is_asleep(folders):
        progress.phase("vm", "ending the virtual machine")
        await backend.kill(folders.instance)
        return
    if backend.liveness(folders.instance) is not Liveness.NOT_OURS:
        try:
            await thaw(folders.name, await link.get())  # a new link tells a guest that stands still, too
        except ShedError as error:
            log.warning("shed %s: it cannot be told to go on: %s", folders.name, error)
    try:
        await in_thread(asleep.clear, folders)
    except StorageError as error:  # the next who takes hold of the shed tries again
        log.warning("%s", error)


def _check_room(folders: Folders, held: int) -> None:
    """Raise `StorageError` when there is no room for the memory."""
    needed, free = held + RESERVE, shutil.disk_usage(folders.instance).free
    if free < needed:
        raise StorageError(
            f"no space for the memory of shed {folders.name!r}: {format_size(free)} free, {format_size(needed)} needed",
            code="NO_SPACE",
            hint="free some space, for example: shed delete NAME",
        )


async def resume(
    backend: Backend,
    record: Record,
    image: BootImage,
    folders: Folders,
    *,
    equip: Equip,
    wait: float,
    progress: Progress,
) -> Booted:
    """Have a suspended shed go on from its memory.

    If that cannot be used, it stays suspended: `UnavailableError` (MEMORY_UNUSABLE), `DamagedError`.  On a failure once
    the VM runs it is ended, and the shed is stopped.
    """
    shape = asleep.load(folders).shape
    vm = boot.machine(replace(record, cpus=shape.cpus, memory_mb=shape.memory_mb), image, folders)
    outfit, settings = await equip(record), ImageSettings.of(image.config)
    try:
        progress.phase("restore", "going on from its memory")
        for warning in await moments_of(backend).resume(vm, folders.memory, partial(asleep.use, folders)):
            progress.warn(warning)
        progress.phase("agent", "waiting for the guest")
        connection = await backend.connect(vm.state_dir, timeout=wait)
        try:
            progress.phase("wake", "waking it")
            await control(
                connection, "wake", wait=wait, **boot.request(record, settings, backend, vm.disks[:-1], outfit)
            )
            await set_clock_quietly(record.name, connection)
        except BaseException:
            await connection.close()
            raise
    except BaseException as error:
        await boot.clean_up(backend, folders, error)
        if isinstance(error, ShedError):
            _explain(error, folders)
        raise
    await in_thread(asleep.clear, folders)
    return Booted(connection, "resumed")


def _explain(error: ShedError, folders: Folders) -> None:
    """Have an error of a shed that did not go on say what to do."""
    way = f"boot its disk, without what ran there: shed start --no-memory {folders.name}"
    if isinstance(error, UnavailableError) and error.code == "MEMORY_UNUSABLE":
        error.message, error.hint = f"shed {folders.name!r} cannot go on: {error.message}", way
    elif asleep.is_asleep(folders):
        error.hint = f"{error.hint or 'try again'}; it is suspended as before, or {way}"
    elif isinstance(error, BackendError):
        error.hint = f"what ran there is gone, and its disk is whole: shed start {folders.name}"
