"""What a running shed is at one moment: kept while it runs on, and what another one goes on from."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from shed.backends.base import Connection
from shed.backends.interface import Backend, Moments, Shape
from shed.errors import BackendError, ConflictError, ShedError, StorageError, UnavailableError, UsageError
from shed.progress import Progress
from shed.sheds import boot, headroom
from shed.sheds.agent import control
from shed.sheds.boot import Booted, Equip
from shed.sheds.clock import set_clock_quietly
from shed.sheds.folders import Folders
from shed.sheds.image_settings import ImageSettings
from shed.sheds.link import Link
from shed.sheds.metadata import Record
from shed.sheds.snapshotstore import MEMORY, UPPER
from shed.sizes import format_size
from shed.threads import in_thread, to_the_end
from shed.untrusted import told

if TYPE_CHECKING:
    from shed.api.making import CreateShed
    from shed.images.resolve import BootImage
    from shed.sheds.snapshotstore import Origin, Snapshot

log = logging.getLogger(__name__)
FREEZE, _THAW = 120.0, 10.0
"""Seconds for a guest to write all that it has to its disk and come to a stand, and to go on."""
_ALONE = "keep its disk alone: `shed snapshot create {name} --no-memory`; or "
_MOST_TEXTS = 100
"""Sentences of a guest's that are passed on."""
RESERVE = 64 << 20
"""Bytes that stay free beside what is kept."""


async def keep(
    record: Record,
    image: BootImage,
    folders: Folders,
    backend: Backend,
    link: Link,
    *,
    into: Path,
    memory: bool,
    progress: Progress,
) -> Shape | None:
    """Put the disk of a running shed into the folder `into` as it is at one moment, and with `memory` that, too.

    Returns the shape of what has the memory.  The shed runs on.  Raises `ConflictError` (SNAPSHOT_SOURCE_RUNNING)
    before anything is touched, `StorageError`, `BackendError`.
    """
    moments = backend.capabilities.moments
    if moments is None:
        raise _stop_first(record, f"the backend {backend.name} cannot keep what runs", "")
    if memory and record.shares:
        raise _stop_first(record, "with its memory, the folder of the host that it shares cannot be kept", _ALONE)
    vm = boot.machine(record, image, folders)
    shape = await in_thread(moments.shape, folders.instance) if memory else None
    pid = backend.pid(folders.instance) or 0
    await in_thread(_check_room, folders, into, headroom.held(pid) if memory else 0)
    if memory:
        (into / MEMORY).mkdir(mode=0o700)

    def tell(done: int, whole: int) -> None:
        progress.abandoned.check()
        progress.bytes("writable layer", done, whole)

    progress.phase("disk", "copying the writable layer while the shed runs")
    target = into / MEMORY if memory else None
    await moments.keep(vm, into / UPPER, target, lambda: _still(record.name, link, progress), tell)
    return shape


@contextlib.asynccontextmanager
async def _still(name: str, link: Link, progress: Progress) -> AsyncIterator[None]:
    """Have the processes of a shed stand still meanwhile, with all that they have written on its disk."""
    connection = await link.get()
    progress.phase("freeze", "the shed stands still for a moment")
    try:
        await control(connection, "freeze", wait=FREEZE)
        began = time.monotonic()
        yield
        log.info("shed %s: stood still for %.0f ms", name, (time.monotonic() - began) * 1000)
    except BackendError as error:
        if error.code == "UNKNOWN_OPERATION":
            error.hint = f"its image came with an agent of an earlier version; stop the shed first: shed stop {name}"
        raise
    finally:
        await to_the_end(thaw(name, connection))
    progress.phase("keep", "the shed runs on; its memory is put in order")


async def thaw(name: str, connection: Connection) -> None:
    """Have a guest go on.  One that cannot be told now is told when it is found again, see `shed.sheds.boot.attach`."""
    try:
        await control(connection, "thaw", wait=_THAW)
    except ShedError as error:
        log.warning("shed %s: it cannot be told to go on: %s", name, error)


def _stop_first(record: Record, why: str, ways: str) -> ConflictError:
    return ConflictError(
        f"shed {record.name!r} is running: {why}",
        code="SNAPSHOT_SOURCE_RUNNING",
        hint=f"{ways.format(name=record.name)}`shed stop {record.name}` first",
    )


def _check_room(folders: Folders, into: Path, held: int) -> None:
    """Raise `StorageError` when there is no room for a copy of the disk, and for the memory, which is there twice."""
    needed = folders.upper.stat().st_blocks * 512 + 2 * held + RESERVE
    free = shutil.disk_usage(into).free
    if free < needed:
        raise StorageError(
            f"no space for the snapshot: {format_size(free)} free, {format_size(needed)} needed",
            code="NO_SPACE",
            hint="free some space, for example: shed delete NAME",
        )


def fits(record: Record, request: CreateShed, snapshot: Snapshot) -> Record:
    """Return `record` with the shape of what goes on from the memory of `snapshot`.

    Raises `UsageError` for what the request wants otherwise.
    """
    shape = snapshot.memory
    assert shape is not None
    wanted = {
        "--cpus": (request.cpus, shape.cpus),
        "--memory": (request.memory_mb, shape.memory_mb),
        "--upper-size": (request.upper_size_bytes, snapshot.size_bytes),
        "--local-dir": (request.local_dir, None),
        "--mount": (tuple(request.mounts or ()) or None, None),
    }
    for option, (value, has) in wanted.items():
        if value not in {None, has}:
            raise UsageError(
                f"a shed that goes on from the memory of snapshot {snapshot.name!r} cannot have another {option}",
                hint=f"leave out {option}, or boot its disk: --no-memory",
            )
    return as_kept(record, snapshot)


def as_kept(record: Record, snapshot: Snapshot) -> Record:
    """Return `record` with the shape that the VM had whose memory is in `snapshot`."""
    shape = snapshot.memory
    assert shape is not None
    return replace(record, cpus=shape.cpus, memory_mb=shape.memory_mb)


async def check(record: Record, image: BootImage, folders: Folders, backend: Backend, origin: Origin) -> None:
    """Raise `UnavailableError` (MEMORY_UNUSABLE) when a shed cannot go back to where the memory of `origin` is."""
    way = "roll back its disk alone, once it is stopped: --no-memory"
    if record.upper_size_bytes != origin.snapshot.size_bytes or record.shares:
        raise UnavailableError(
            f"shed {record.name!r} cannot go on from the memory of {origin.snapshot.name!r}: it has another disk or a "
            "folder of the host",
            code="MEMORY_UNUSABLE",
            hint=way,
        )
    try:
        vm = boot.machine(as_kept(record, origin.snapshot), image, folders)
        await moments_of(backend).check(vm, origin.memory)
    except UnavailableError as error:
        error.hint = way
        raise


def moments_of(backend: Backend) -> Moments:
    """Return what keeps moments.  Raises `UnavailableError` (MEMORY_UNUSABLE) where the backend keeps none."""
    moments = backend.capabilities.moments
    if moments is None:
        raise UnavailableError(f"the backend {backend.name} keeps no memory of VMs", code="MEMORY_UNUSABLE")
    return moments


async def go_on(
    backend: Backend,
    record: Record,
    image: BootImage,
    folders: Folders,
    memory: Path,
    *,
    equip: Equip,
    wait: float,
    progress: Progress,
) -> Booted:
    """Have the shed `record`, whose disk was kept with `memory`, go on from it, as somebody else.

    On any failure the VM is gone again: what nobody has told who it is runs nothing.
    """
    vm = boot.machine(record, image, folders)
    outfit, settings = await equip(record), ImageSettings.of(image.config)
    try:
        progress.phase("restore", "going on from the memory of the snapshot")
        for warning in await moments_of(backend).go_on(vm, memory):
            progress.warn(warning)
        progress.phase("agent", "waiting for the guest")
        connection = await backend.connect(vm.state_dir, timeout=wait)
        try:
            progress.phase("fork", "making it another shed")
            fields = boot.request(record, settings, backend, vm.disks[:-1], outfit)
            answer = await control(connection, "fork", wait=wait, **fields)
            for words in _texts(answer.get("hooks")):
                progress.warn(f"/etc/shed/forked.d: {words}")
            await set_clock_quietly(record.name, connection)
        except BaseException:
            await connection.close()
            raise
    except BaseException as error:
        await boot.clean_up(backend, folders, error)
        raise
    return Booted(connection, "warm")


def _texts(value: object) -> list[str]:
    """Return what a guest says went wrong."""
    return [told(each) for each in value[:_MOST_TEXTS]] if isinstance(value, list) else []
