"""Snapshots of sheds, and what new sheds begin with."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from shed.backends.base import Liveness
from shed.backends.interface import Backend, Shape
from shed.config.paths import Paths
from shed.errors import ConflictError, NotFoundError, UnavailableError, UsageError
from shed.names import MAX_NAME, check_shed_name, check_snapshot_name
from shed.oci.digest import parse_digest
from shed.oci.store import LayoutStore
from shed.progress import Progress
from shed.sheds import metadata, moments
from shed.sheds.asleep import is_asleep
from shed.sheds.bringup import BringUp
from shed.sheds.catalog import View, load
from shed.sheds.changes import Hold
from shed.sheds.create import Resolve
from shed.sheds.folders import Folders
from shed.sheds.lifecycle import in_doubt
from shed.sheds.link import Link
from shed.sheds.metadata import Record
from shed.sheds.snapshotstore import Origin, Snapshot, SnapshotStore, origin_in
from shed.sheds.upper import replace_upper, template
from shed.threads import in_thread, stoppable


class Snapshots:
    """The snapshots below `paths`, of sheds that `hold` holds by their names for what is to be done."""

    def __init__(self, hold: Hold, backend: Backend, paths: Paths, resolve: Resolve, bring_up: BringUp) -> None:
        self._hold = hold
        self._bring_up = bring_up
        self._resolve = resolve
        self._backend = backend
        self._paths = paths
        self.store = SnapshotStore(paths)

    async def create(
        self, shed: str, name: str | None, comment: str, progress: Progress, *, disk_only: bool = False
    ) -> View:
        """Keep what a shed has written and, unless `disk_only`, what runs there; return what is known of it.

        Without `name` it gets one of its own.  The memory is kept of a shed that runs, which runs on.  Raises
        `NotFoundError`, `ConflictError` (SNAPSHOT_SOURCE_RUNNING, SNAPSHOT_ALREADY_EXISTS), `StorageError`, and
        `BackendError` when a shed that runs cannot be kept.
        """
        check_snapshot_name(name or shed)
        async with self._hold(shed, "snapshot") as (folders, link):
            record = load(folders)
            if not disk_only:
                _check_awake(folders, "keep its disk alone: --no-memory; or ")
            snapshot = self._begin(record, name, comment)
            return self.view(await self._save(record, folders, link, snapshot, memory=not disk_only, progress=progress))

    @contextlib.asynccontextmanager
    async def moment(self, shed: str, progress: Progress) -> AsyncIterator[Origin]:
        """Have what a running shed is now, for others to go on from, for as long as the block lasts.

        Raises `UnavailableError` (SHED_NOT_RUNNING), and what `create` does.
        """
        files_alone = f"its files alone: `shed snapshot create {shed} --no-memory`, and `shed create --from-snapshot`"
        with self.store.draft(check_shed_name(shed)) as made:
            async with self._hold(shed, "fork") as (folders, link):
                record = load(folders)
                if self._liveness(folders) is Liveness.NOT_OURS:
                    raise UnavailableError(
                        f"shed {shed!r} is not running",
                        code="SHED_NOT_RUNNING",
                        hint=f"`shed start {shed}`, or fork {files_alone}",
                    )
                try:
                    kept = await self._keep(record, folders, link, made, memory=True, progress=progress)
                except ConflictError as error:  # what may be kept otherwise cannot be forked otherwise
                    error.hint = f"fork {files_alone}"
                    raise
            yield origin_in(made, replace(self._begin(record, shed, ""), memory=kept))

    async def _keep(
        self, record: Record, folders: Folders, link: Link, into: Path, *, memory: bool, progress: Progress
    ) -> Shape | None:
        image = await in_thread(self._resolve, record.lower_digest)
        return await moments.keep(
            record, image, folders, self._backend, link, into=into, memory=memory, progress=progress
        )

    async def rollback(
        self, shed: str, name: str | None, *, discard: bool, disk_only: bool = False, progress: Progress
    ) -> tuple[Record, str]:
        """Have a shed go back to a snapshot, its last one without `name`; return its record, and how its VM came up.

        It goes on from the memory of the snapshot, whether it ran or not, unless there is none, or `disk_only`: then it
        must be stopped, and stays so.  What it was is kept as a snapshot, unless that is to be `discard`ed.  Raises
        `NotFoundError`, `ConflictError` (SHED_NOT_STOPPED, SNAPSHOT_OF_OTHER_IMAGE), `StorageError`,
        `UnavailableError` (MEMORY_UNUSABLE) before anything is touched, and what a start raises.
        """
        async with self._hold(shed, "rollback") as (folders, link):
            record = load(folders)
            snapshot = self._last(shed) if name is None else self.store.load(name)
            origin = None if disk_only or snapshot.memory is None else self.store.origin(snapshot.name)
            alive = origin is not None and self._liveness(folders) is Liveness.OURS
            if not alive:
                record = self._stopped(folders)
            if (snapshot.lower_digest, snapshot.backend) != (record.lower_digest, record.backend):
                raise ConflictError(
                    f"the snapshot {snapshot.name!r} is of a shed with another image than {shed!r} has",
                    code="SNAPSHOT_OF_OTHER_IMAGE",
                    hint=f"make another shed: shed create NAME --from-snapshot {snapshot.name}",
                )
            if origin is not None:
                image = await in_thread(self._resolve, record.lower_digest)
                await moments.check(record, image, folders, self._backend, origin)
            if not discard:
                before = self._begin(record, None, f"before the rollback to {snapshot.name}")
                await self._save(record, folders, link, before, memory=True, progress=progress)
                progress.phase("rollback", f"{before.name} keeps what {shed} was")
            if alive:
                await link.drop()
                await self._backend.kill(folders.instance)
            upper = self.store.upper(snapshot.name)
            record = await self._begin_with(upper, snapshot.size_bytes, record, folders, progress)
            if origin is None:
                return record, ""
            return await self._bring_up.boot(record, folders, link, progress, origin=origin)

    async def reset(self, shed: str, progress: Progress) -> Record:
        """Have a stopped shed begin anew, with its image alone; return its record.

        Raises `NotFoundError`, `ConflictError` (SHED_NOT_STOPPED), `StorageError`.
        """
        async with self._hold(shed, "reset") as (folders, _):
            record = self._stopped(folders)
            image = await in_thread(self._resolve, record.lower_digest)
            empty = await in_thread(template, folders.templates, image.runtime, record.upper_size_bytes)
            return await self._begin_with(empty, 0, record, folders, progress)

    def origin(self, name: str | None, image: str | None) -> Origin | None:
        """Return the snapshot that a new shed is to begin with, if any.  Raises `NotFoundError`, `UsageError`."""
        if name is None:
            return None
        if image is not None:
            raise UsageError(
                "a shed is made from an image or from a snapshot, not from both", hint="leave out the image"
            )
        origin = self.store.origin(name)
        snapshot = origin.snapshot
        if snapshot.backend != self._backend.name:
            raise UsageError(
                f"the snapshot {name!r} is of the backend {snapshot.backend}, and this server has {self._backend.name}",
                hint="use it on a server with that backend",
            )
        return origin

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
            "memory_mb": snapshot.memory.memory_mb if snapshot.memory else 0,
            "egress": list(snapshot.egress or ()),
        }

    def _liveness(self, folders: Folders) -> Liveness:
        """Return whether a shed runs.  Raises `ConflictError` when that cannot be told."""
        found = self._backend.liveness(folders.instance)
        if found is Liveness.UNKNOWN:
            raise in_doubt(folders.name, self._backend.pid(folders.instance))
        return found

    def _stopped(self, folders: Folders) -> Record:
        """Return the record of a shed that is stopped.  Raises `NotFoundError`, `ConflictError` (SHED_NOT_STOPPED)."""
        record = load(folders)
        if self._liveness(folders) is Liveness.OURS:
            raise ConflictError(
                f"shed {folders.name!r} is running, and this takes a stopped one",
                code="SHED_NOT_STOPPED",
                hint=f"`shed stop {folders.name}` first",
            )
        _check_awake(folders, f"drop what runs there: shed stop {folders.name}; or ")
        return record

    async def _save(
        self, record: Record, folders: Folders, link: Link, snapshot: Snapshot, *, memory: bool, progress: Progress
    ) -> Snapshot:
        """Keep a shed as `snapshot`, and return that; with the `memory` of one that runs."""
        progress.phase("snapshot", f"making the snapshot {snapshot.name}")
        if self._liveness(folders) is Liveness.NOT_OURS:
            await stoppable(
                lambda stop: self.store.save(snapshot, folders.upper, progress, stop), progress.abandoned, long=True
            )
            return snapshot
        self.store.check_free(snapshot.name)
        with self.store.draft(snapshot.name) as made:
            kept = await self._keep(record, folders, link, made, memory=memory, progress=progress)
            snapshot = replace(snapshot, memory=kept)
            await in_thread(self.store.publish, made, snapshot)
        return snapshot

    def _begin(self, record: Record, name: str | None, comment: str) -> Snapshot:
        """Return a snapshot that is to be made of a shed."""
        return Snapshot(
            name or self._free(record.name),
            record.backend,
            record.name,
            record.image,
            metadata.now(),
            record.lower_digest,
            record.upper_size_bytes,
            comment,
            tuple(record.egress_profiles),
        )

    async def _begin_with(self, upper: Path, size: int, record: Record, folders: Folders, progress: Progress) -> Record:
        """Put a clone of a writable layer of `size` bytes in place of that of a shed, which may be larger."""
        changed = replace(record, upper_size_bytes=max(size, record.upper_size_bytes))
        progress.phase("upper", "cloning the writable layer")
        await stoppable(
            lambda stop: replace_upper(upper, folders.upper, changed.upper_size_bytes, progress, stop),
            progress.abandoned,
            long=True,
        )
        await in_thread(metadata.save, folders.instance, changed)  # a longer disk than it says does no harm
        return changed

    def _last(self, shed: str) -> Snapshot:
        """Return the snapshot of a shed that was made last.  Raises `NotFoundError`."""
        found, _ = self.store.all()
        ours = [snapshot for snapshot in found if snapshot.source_shed == shed]
        if not ours:
            raise NotFoundError(
                f"there is no snapshot of shed {shed!r}", code="SNAPSHOT_NOT_FOUND", hint="see: shed snapshot ls"
            )
        return max(ours, key=lambda snapshot: (snapshot.created_at, snapshot.name))

    def _free(self, shed: str) -> str:
        """Return the first name that no snapshot of a shed has."""
        taken = set(self.store.names())
        short = shed[: MAX_NAME - 8]
        return next(name for number in itertools.count(1) if (name := f"{short}-{number}") not in taken)


def _check_awake(folders: Folders, way: str) -> None:
    """Raise `ConflictError` for a suspended shed, with another `way` out than to resume it."""
    if is_asleep(folders):
        raise ConflictError(
            f"shed {folders.name!r} is suspended",
            code="SHED_SUSPENDED",
            hint=f"{way}`shed resume {folders.name}` first",
        )
