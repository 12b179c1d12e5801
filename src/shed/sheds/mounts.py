"""Changes of the folders of the host that a shed has, also of one that runs.

What its record says is never less than what its VM has: a folder that comes is written down first, one that goes last.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from shed.backends.base import Liveness
from shed.backends.interface import Backend, Mounting
from shed.errors import BackendError, ConflictError, NotFoundError, ShedError
from shed.sheds import boot, expiry, idle, metadata, mountspec, workspace
from shed.sheds.agent import control
from shed.sheds.asleep import is_asleep
from shed.sheds.catalog import load
from shed.sheds.changes import Hold
from shed.sheds.create import Resolve
from shed.sheds.folders import Folders
from shed.sheds.image_settings import ImageSettings
from shed.sheds.lifecycle import in_doubt, left_behind
from shed.sheds.link import Link
from shed.sheds.metadata import Record
from shed.sheds.mountspec import Mount
from shed.threads import in_thread

if TYPE_CHECKING:
    from shed.api.mounts import ChangeMounts

log = logging.getLogger(__name__)
_GUEST = 15.0
"""Seconds for a guest to write what it has not yet written, and to mount or unmount."""


class Mounts:
    """Changes the folders of sheds that `hold` holds; `resolve` finds their images."""

    def __init__(self, hold: Hold, backend: Backend, resolve: Resolve) -> None:
        self._hold = hold
        self._backend = backend
        self._resolve = resolve

    async def change(self, name: str, wanted: ChangeMounts, warn: Callable[[str], None]) -> Record:
        """Take folders of the host from a shed and give it others; return its record.

        `warn` hears what a shed that runs has left in those that it loses, see `shed.sheds.leftovers`.

        Raises `UsageError`, `NotFoundError`, and `ConflictError` (SHED_NOT_STOPPED, SHED_SUSPENDED, CANNOT_SUSPEND),
        when nothing has changed; of one that runs, `ConflictError` (MOUNT_IN_USE) and `BackendError`.
        """
        async with self._hold(name, "mounts") as (folders, link):
            before = load(folders)
            record = await in_thread(self._changed, before, wanted)
            if record == before:
                return record
            match self._backend.liveness(folders.instance):
                case Liveness.UNKNOWN:
                    raise in_doubt(name, self._backend.pid(folders.instance))
                case Liveness.OURS:
                    return await self._of_running(before, record, folders, link, warn, force=wanted.force)
                case Liveness.NOT_OURS if is_asleep(folders):
                    raise ConflictError(
                        f"shed {name!r} is suspended, and goes on with the folders that it has",
                        code="SHED_SUSPENDED",
                        hint=f"drop what runs there: shed stop {name}; then again",
                    )
            await in_thread(metadata.save, folders.instance, record)
            return record

    def _changed(self, record: Record, wanted: ChangeMounts) -> Record:
        """Return the record as it is to be.  Raises `UsageError`, `NotFoundError`, `ConflictError`."""
        left = without(record, wanted.remove)
        if not wanted.add:
            return replace(record, mounts=list(map(str, left)) or None)
        found = mountspec.checked(wanted.add, record.local_dir, left)
        expiry.action(record.ttl_action, shares=True)
        idle.chosen(record.idle_suspend, 0, record.network, shares=True)
        uid, gid = record.guest_uid, record.guest_gid
        if not record.shares:
            image = self._resolve(record.lower_digest)
            uid, gid = workspace.guest_owner(image.root, ImageSettings.of(image.config).user)
        return replace(record, mounts=list(map(str, found)), guest_uid=uid, guest_gid=gid)

    async def _of_running(
        self,
        before: Record,
        wanted: Record,
        folders: Folders,
        link: Link,
        warn: Callable[[str], None],
        *,
        force: bool,
    ) -> Record:
        """Change the folders of a shed that runs, one by one; return its record."""
        mounting = self._backend.capabilities.mounting
        if mounting is None or not mounting.offers(folders.instance):
            raise ConflictError(
                f"shed {before.name!r} is running, and was started without --mount, or a --local-dir that it may write",
                code="SHED_NOT_STOPPED",
                hint=f"shed stop {before.name}; then again, and shed start {before.name}",
            )
        record = replace(before, guest_uid=wanted.guest_uid, guest_gid=wanted.guest_gid)
        for mount in before.mounted:
            if mount not in wanted.mounted:
                left = [str(each) for each in record.mounted if each != mount]
                without_it = replace(record, mounts=left)
                try:
                    await self._take(mounting, record, mount, folders, link, force=force, last=not left)
                except BackendError as error:
                    if error.code == "STILL_SHARED":  # it has gone with its VM, and does not come back with the next
                        await in_thread(metadata.save, folders.instance, without_it)
                    raise
                await in_thread(metadata.save, folders.instance, without_it)
                alone = replace(record, local_dir=None, mounts=[str(mount)])
                for words in await in_thread(left_behind, alone):
                    warn(words)
                record = without_it
        for mount in wanted.mounted:
            if mount not in record.mounted:
                with_it = replace(record, mounts=[*(record.mounts or ()), str(mount)])
                await in_thread(metadata.save, folders.instance, with_it)
                try:
                    await self._give(mounting, with_it, mount, folders, link)
                except BaseException:
                    await in_thread(metadata.save, folders.instance, record)
                    raise
                record = with_it
        return record

    async def _give(self, mounting: Mounting, record: Record, mount: Mount, folders: Folders, link: Link) -> None:
        share = boot.further(record, mount)
        try:
            await mounting.add(folders.instance, share)
            async with asyncio.timeout(_GUEST):
                await control(await link.get(), "mount", wait=_GUEST, mounts=[boot.told_of(record, mount)])
        except BaseException as error:
            await self._end(mounting, record, mount, folders, link)
            if isinstance(error, TimeoutError):
                raise BackendError("the guest does not answer", code="AGENT_TIMEOUT") from None
            raise

    async def _take(
        self,
        mounting: Mounting,
        record: Record,
        mount: Mount,
        folders: Folders,
        link: Link,
        *,
        force: bool,
        last: bool,
    ) -> None:
        """Have the guest write what it has not yet written, and unmount; then the folder goes, whatever it has said."""
        try:
            async with asyncio.timeout(_GUEST):
                connection = await link.get()
                await control(connection, "sync", wait=_GUEST)
                answer = await control(connection, "unmount", wait=_GUEST, target=mount.target, force=force, last=last)
        except (ShedError, TimeoutError) as error:
            log.warning("shed %s: its guest did not unmount %s: %s", record.name, mount.target, error or "no answer")
        else:
            if answer.get("busy") is True:
                raise ConflictError(
                    f"programs in shed {record.name!r} use {mount.target}",
                    code="MOUNT_IN_USE",
                    hint="end them, or add --force: what they have open there is of no use then",
                )
        await self._end(mounting, record, mount, folders, link)

    async def _end(self, mounting: Mounting, record: Record, mount: Mount, folders: Folders, link: Link) -> None:
        """Take a folder from a VM for certain, also when nobody waits for that any more: one that keeps it is ended.

        Raises `BackendError` (STILL_SHARED) when it was ended.
        """
        taking = asyncio.ensure_future(mounting.remove(folders.instance, boot.further(record, mount)))
        cancelled = None
        try:
            await asyncio.wait([taking])
        except asyncio.CancelledError as error:
            cancelled = error
            await asyncio.wait([taking])
        if (problem := taking.exception()) is not None:
            log.warning("shed %s does not let go of %s, so it is ended: %s", record.name, mount.source, problem)
            await link.drop()
            await self._backend.kill(folders.instance)
            raise BackendError(
                f"shed {record.name!r} did not let go of {mount.source}, so its VM was ended",
                code="STILL_SHARED",
                hint=f"shed start {record.name}",
            ) from problem
        if cancelled is not None:
            raise cancelled


def without(record: Record, targets: Iterable[str]) -> list[Mount]:
    """Return the folders that a shed has beside its workspace, without those at `targets`.  Raises `NotFoundError`."""
    left = {mount.target: mount for mount in record.mounted}
    for target in dict.fromkeys(map(mountspec.check_target, targets)):
        if left.pop(target, None) is None:
            raise NotFoundError(
                f"shed {record.name!r} has no folder of its host at {target}",
                code="MOUNT_NOT_FOUND",
                hint=f"see: shed mount ls {record.name}",
            )
    return list(left.values())
