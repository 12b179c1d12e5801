"""Snapshots of sheds: made of stopped ones, and what new sheds begin with."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from shed.backends.base import Liveness
from shed.backends.interface import Backend
from shed.config.paths import Paths
from shed.errors import ConflictError, UsageError
from shed.names import MAX_NAME, check_snapshot_name
from shed.oci.digest import parse_digest
from shed.oci.store import LayoutStore
from shed.progress import Progress
from shed.sheds import metadata
from shed.sheds.catalog import View, load
from shed.sheds.folders import Folders
from shed.sheds.lifecycle import in_doubt
from shed.sheds.link import Link
from shed.sheds.snapshotstore import Origin, Snapshot, SnapshotStore
from shed.threads import stoppable

Hold = Callable[[str, str], AbstractAsyncContextManager[tuple[Folders, Link]]]


class Snapshots:
    """The snapshots below `paths`, of sheds that `hold` holds by their names for what is to be done."""

    def __init__(self, hold: Hold, backend: Backend, paths: Paths) -> None:
        self._hold = hold
        self._backend = backend
        self._paths = paths
        self.store = SnapshotStore(paths)

    async def create(self, shed: str, name: str | None, comment: str, progress: Progress) -> View:
        """Keep what a stopped shed has written; without `name` under one of its own.  Return what is known of it.

        Raises `NotFoundError`, `ConflictError` (SNAPSHOT_SOURCE_RUNNING, SNAPSHOT_ALREADY_EXISTS), `StorageError`.
        """
        chosen = check_snapshot_name(name or self._free(shed))
        async with self._hold(shed, "snapshot") as (folders, _):
            record = load(folders)
            match self._backend.liveness(folders.instance):
                case Liveness.UNKNOWN:
                    raise in_doubt(shed, self._backend.pid(folders.instance))
                case Liveness.OURS:
                    raise ConflictError(
                        f"shed {shed!r} is running, and a snapshot is made of a stopped one",
                        code="SNAPSHOT_SOURCE_RUNNING",
                        hint=f"`shed stop {shed}` first",
                    )
            snapshot = Snapshot(
                chosen,
                record.backend,
                shed,
                record.image,
                metadata.now(),
                record.lower_digest,
                record.upper_size_bytes,
                comment,
                tuple(record.egress_profiles),
            )
            progress.phase("copy", "cloning the writable layer")
            await stoppable(
                lambda stop: self.store.save(snapshot, folders.upper, progress, stop), progress.abandoned, long=True
            )
        return self.view(snapshot)

    def origin(self, name: str | None, image: str | None) -> Origin | None:
        """Return the snapshot that a new shed is to begin with, if any.  Raises `NotFoundError`, `UsageError`."""
        if name is None:
            return None
        if image is not None:
            raise UsageError(
                "a shed is made from an image or from a snapshot, not from both", hint="leave out the image"
            )
        snapshot = self.store.load(name)
        if snapshot.backend != self._backend.name:
            raise UsageError(
                f"the snapshot {name!r} is of the backend {snapshot.backend}, and this server has {self._backend.name}",
                hint="use it on a server with that backend",
            )
        return Origin(snapshot, self.store.upper(name))

    def view(self, snapshot: Snapshot) -> View:
        """Return what there is to say of a snapshot."""
        space = self.store.space(snapshot.name)
        store = LayoutStore(self._paths.images)
        return {
            "name": snapshot.name,
            "created_at": snapshot.created_at,
            "source_shed": snapshot.source_shed,
            "source_image": snapshot.source_image,
            "lower_digest": snapshot.lower_digest,
            "lower_cached": store.blob_path(parse_digest(snapshot.lower_digest)).exists(),
            "backend": snapshot.backend,
            "comment": snapshot.comment,
            "size_bytes": snapshot.size_bytes,
            "disk_bytes": space.disk,
            "egress": list(snapshot.egress or ()),
        }

    def _free(self, shed: str) -> str:
        """Return the first name that no snapshot of a shed has."""
        taken = set(self.store.names())
        short = shed[: MAX_NAME - 8]
        return next(name for number in itertools.count(1) if (name := f"{short}-{number}") not in taken)
