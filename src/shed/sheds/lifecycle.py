"""Start, stop, delete and sweep of one shed.  The caller holds its name.

Nothing is signalled or removed while its VM is in doubt.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

from shed.backends.base import Liveness
from shed.backends.interface import Backend
from shed.errors import BackendError, ConflictError, ShedError
from shed.progress import Progress
from shed.sheds import asleep, metadata, moments, mountspec, rename, workspace
from shed.sheds.admission import Admission
from shed.sheds.agent import control
from shed.sheds.boot import Booted, Equip, boot
from shed.sheds.create import Resolve, discard
from shed.sheds.folders import Folders
from shed.sheds.link import Link
from shed.sheds.ports import Ports
from shed.sheds.snapshotstore import Origin
from shed.sheds.suspending import resume
from shed.sheds.warm import WarmStart
from shed.threads import in_thread

log = logging.getLogger(__name__)
_SYNC_TIMEOUT = 5.0
_ADOPT = 15.0
"""Seconds to reach the agent of a shed that ran before the server."""
_FIND_AGENT = 5.0
"""Seconds to reach an agent that is only wanted for a clean end."""


def in_doubt(name: str, pid: int | None) -> ConflictError:
    """Return the error for a VM of which it cannot be told whether it runs."""
    return ConflictError(
        f"it cannot be told whether the VM of shed {name!r} (process {pid}) is running, so it is left alone",
        code="VM_UNKNOWN",
        hint="look at that process; when it is gone, try again",
    )


async def start(
    record: metadata.Record,
    folders: Folders,
    backend: Backend,
    resolve: Resolve,
    warm: WarmStart | None,
    *,
    equip: Equip,
    admission: Admission,
    force: bool,
    disk_only: bool,
    origin: Origin | None,
    wait: float,
    progress: Progress,
) -> tuple[metadata.Record, Booted]:
    """Bring up the stopped shed `record` with the image it was made from, or have a suspended one go on.

    It goes on from the memory of `origin`, with whose disk it begins, if that is given.

    Returns its new record and its VM with a ready agent.

    With `force`, also when the host is short of memory.  With `disk_only`, the memory of a suspended one is dropped.
    """
    if backend.liveness(folders.instance) is Liveness.UNKNOWN:
        raise in_doubt(record.name, backend.pid(folders.instance))
    began = metadata.now()
    progress.phase("image")
    image = await in_thread(resolve, record.lower_digest)
    for mount in record.shared:
        await in_thread(workspace.check_still_there, record.name, mount.source, mount.target)
    await in_thread(mountspec.check_apart, record.name, record.shared)
    await in_thread(_open_upper, record.name, folders.upper)
    goes_on = asleep.is_asleep(folders) and not disk_only
    memory_mb = asleep.load(folders).memory_mb if goes_on else record.memory_mb
    async with admission.admitted(record.name, memory_mb, force=force):
        if origin is not None:
            before = moments.as_kept(record, origin.snapshot)
            booting = moments.go_on(
                backend, before, image, folders, origin.memory, equip=equip, wait=wait, progress=progress
            )
        elif goes_on:
            booting = resume(backend, record, image, folders, equip=equip, wait=wait, progress=progress)
        else:
            await in_thread(asleep.drop, folders)
            booting = boot(backend, record, image, folders, warm, equip=equip, wait=wait, progress=progress)
        booted = await booting
    try:
        return await _want(record, folders, "running", began=began), booted
    except BaseException:  # a VM whose start has failed does not run on
        await booted.connection.close()
        await backend.kill(folders.instance)
        raise


def _open_upper(name: str, path: Path) -> None:
    """Raise the error that says so when the shed's writable layer cannot be opened.

    What a VM says of that is less clear.
    """
    try:
        path.open("r+b").close()
    except OSError as error:
        what, code, cure = "cannot be opened", "UPPER_UNUSABLE", "make it a file that the server's user may write"
        if isinstance(error, FileNotFoundError):
            what, code, cure = "is gone", "UPPER_MISSING", "put the file back"
        hint = f"{cure}, or `shed delete {name}`"
        raise BackendError(
            f"the writable layer of shed {name!r} {what}: {path}: {error.strerror}", code=code, hint=hint
        ) from None


async def adopt(folders: Folders, backend: Backend, link: Link, ports: Ports) -> None:
    """Publish the ports of a shed that an earlier server has left running or suspended, and find its agent.

    Raises `ShedError`, and `TimeoutError` when that does not answer; it is looked for again when it is needed.
    """
    alive = backend.liveness(folders.instance) is Liveness.OURS
    if alive or asleep.is_asleep(folders):
        await ports.adopt(folders.name, (await in_thread(metadata.load, folders.instance)).published)
    if alive:
        async with asyncio.timeout(_ADOPT):
            await link.get()
        log.info("shed %s: adopted", folders.name)


async def stop(
    record: metadata.Record, folders: Folders, backend: Backend, link: Link, *, wait: float, progress: Progress
) -> metadata.Record:
    """Power the guest off, or after `wait` seconds end its VM; of a suspended one, drop the memory.

    Raises `ConflictError` when it does not run or is in doubt.
    """
    match backend.liveness(folders.instance):
        case Liveness.UNKNOWN:
            raise in_doubt(record.name, backend.pid(folders.instance))
        case Liveness.NOT_OURS if await in_thread(asleep.drop, folders):
            progress.warn(f"the memory of shed {record.name!r} is dropped: what ran there is gone")
        case Liveness.NOT_OURS if record.wanted == "stopped":
            raise ConflictError(
                f"shed {record.name!r} is not running", code="SHED_ALREADY_STOPPED", hint=f"`shed start {record.name}`"
            )
        case Liveness.OURS:
            progress.phase("poweroff", "powering off")
            if not await _power_off(folders.instance, backend, link, wait=wait):
                progress.warn(f"shed {record.name!r} did not power off in time and was killed")
    progress.phase("vm")
    await link.drop()
    await backend.kill(folders.instance)  # clears the record of a VM that is gone, too
    for words in await in_thread(left_behind, record):
        progress.warn(words)
    return await _want(replace(record, mounts=record.mounts or None), folders, "stopped")


def left_behind(record: metadata.Record) -> list[str]:
    """Return what to tell of the shed's folders of the host."""
    if not record.shared:
        return []
    from shed.sheds import leftovers  # noqa: PLC0415  most sheds have no shared folder

    return leftovers.changed(record, leftovers.since(record))


async def _power_off(instance: Path, backend: Backend, link: Link, *, wait: float) -> bool:
    try:
        async with asyncio.timeout(_FIND_AGENT):
            connection = await link.get()
        await control(connection, "poweroff", wait=wait)
    except (ShedError, TimeoutError) as error:
        log.warning(
            "cannot ask the guest of %s to power off: %s", instance.name, str(error) or "its agent does not answer"
        )
        return False
    return await backend.wait_exit(instance, timeout=wait)


async def delete(folders: Folders, backend: Backend, link: Link, *, force: bool, progress: Progress) -> None:
    """Remove the shed and everything in it.

    A running or suspended one, or one whose record is damaged, only with `force`.
    """
    shares = True
    try:
        shares = bool((await in_thread(metadata.load, folders.instance)).shared)
    except metadata.DamagedError:
        if not force:
            raise
    match backend.liveness(folders.instance):
        case Liveness.UNKNOWN:
            raise in_doubt(folders.name, backend.pid(folders.instance))
        case Liveness.OURS if not force:
            hint = f"`shed stop {folders.name}` first, or `shed delete --force {folders.name}`"
            raise ConflictError(f"shed {folders.name!r} is running", code="SHED_NOT_STOPPED", hint=hint)
        case Liveness.NOT_OURS if asleep.is_asleep(folders) and not force:
            hint = f"drop what runs there: shed stop {folders.name}; or `shed delete --force {folders.name}`"
            raise ConflictError(f"shed {folders.name!r} is suspended", code="SHED_SUSPENDED", hint=hint)
        case Liveness.OURS if shares and link.live:
            progress.phase("sync", "writing shared folders back")
            await _sync(link)
    progress.phase("vm", "ending the virtual machine")
    await link.drop()
    await backend.kill(folders.instance)
    progress.phase("remove", "removing the writable layer")
    await in_thread(folders.remove)


async def _sync(link: Link) -> None:
    """Let the guest write to its host folders what it still holds: what is only in its own disk goes away anyhow."""
    try:
        await control(await link.get(), "sync", wait=_SYNC_TIMEOUT)
    except ShedError as error:
        log.warning("cannot sync before delete: %s", error)


async def sweep(folders: Folders, backend: Backend, *, linked: bool) -> None:
    """Finish what a server that was killed has left of this name: undo its create or its start, complete its delete.

    A suspend is completed when the memory is.  A VM that is `linked` is surely up.
    """
    unfinished = (folders.instance / metadata.MARKER).exists()
    if (to := rename.new_name(folders)) is not None:
        await in_thread(rename.go_on, folders, folders.of(to))
        return
    if not (unfinished or folders.reservation.exists() or folders.gone.exists()):
        if (
            not linked
            and backend.liveness(folders.instance) is Liveness.OURS
            and (asleep.is_asleep(folders) or await backend.half_started(folders.instance))
        ):
            log.warning("shed %s: its VM was left standing still; ending it", folders.name)
            await backend.kill(folders.instance)
        asleep.clear(folders)
        return
    if unfinished:
        if backend.liveness(folders.instance) is Liveness.UNKNOWN:
            raise in_doubt(folders.name, backend.pid(folders.instance))
        log.warning("shed %s: its create was cut short; removing what it left", folders.name)
        await backend.kill(folders.instance)
        folders.keep_console()
        await discard(folders, backend)
    else:
        await in_thread(folders.remove_leftovers)


async def _want(record: metadata.Record, folders: Folders, wanted: str, *, began: str | None = None) -> metadata.Record:
    """Save that the shed is to run, which `began` then, or is to be stopped, unless its record says so."""
    if record.wanted == wanted:
        return record
    record = replace(record, wanted=wanted, started_at=began or record.started_at)
    await in_thread(metadata.save, folders.instance, record)
    return record
