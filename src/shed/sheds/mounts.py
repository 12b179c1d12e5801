"""Changes of the folders of the host that a shed has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from shed.backends.base import Liveness
from shed.backends.interface import Backend
from shed.errors import ConflictError, NotFoundError
from shed.sheds import expiry, idle, metadata, mountspec, workspace
from shed.sheds.asleep import is_asleep
from shed.sheds.catalog import load
from shed.sheds.changes import Hold
from shed.sheds.create import Resolve
from shed.sheds.image_settings import ImageSettings
from shed.sheds.lifecycle import in_doubt
from shed.sheds.metadata import Record
from shed.sheds.mountspec import Mount
from shed.threads import in_thread

if TYPE_CHECKING:
    from shed.api.mounts import ChangeMounts


class Mounts:
    """Changes the folders of sheds that `hold` holds; `resolve` finds their images."""

    def __init__(self, hold: Hold, backend: Backend, resolve: Resolve) -> None:
        self._hold = hold
        self._backend = backend
        self._resolve = resolve

    async def change(self, name: str, wanted: ChangeMounts) -> Record:
        """Give a stopped shed folders of the host and take others from it; return its record.

        Raises `UsageError`, `NotFoundError`, and `ConflictError` (SHED_NOT_STOPPED, SHED_SUSPENDED, CANNOT_SUSPEND);
        then nothing has changed.
        """
        async with self._hold(name, "mounts") as (folders, _):
            before = load(folders)
            record = await in_thread(self._changed, before, wanted)
            if record == before:
                return record
            match self._backend.liveness(folders.instance):
                case Liveness.UNKNOWN:
                    raise in_doubt(name, self._backend.pid(folders.instance))
                case Liveness.OURS:
                    raise ConflictError(
                        f"shed {name!r} is running, and its folders are those that it was started with",
                        code="SHED_NOT_STOPPED",
                        hint=f"shed stop {name}; then again, and shed start {name}",
                    )
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
        if not record.shared:
            image = self._resolve(record.lower_digest)
            uid, gid = workspace.guest_owner(image.root, ImageSettings.of(image.config).user)
        return replace(record, mounts=list(map(str, found)), guest_uid=uid, guest_gid=gid)


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
