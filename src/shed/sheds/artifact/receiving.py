"""Receiving a snapshot: chunk by chunk into a disk beside its place, which gets its name when it is complete.

What came is found again by its content: a pull that was cut goes on where it was.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from shed.budget import Limits, Reserve
from shed.errors import DataError
from shed.fsutil import storage_errors
from shed.images.transfer import Counter, at_once
from shed.names import check_snapshot_name
from shed.oci.archive import blaming, open_archive
from shed.oci.digest import digest_bytes, short
from shed.oci.registry.client import Repository
from shed.oci.registry.reference import parse_reference
from shed.progress import Progress, Stop
from shed.sheds.artifact import disk
from shed.sheds.artifact.document import Artifact
from shed.sheds.artifact.fetching import File, Origin, Registry
from shed.sheds.snapshotstore import Snapshot, SnapshotStore

AT_ONCE = 4
"""Chunks that come at a time: of a mebibyte each, waiting for one takes as long as the bytes do."""
_OFFLINE = "offline"
"""The one profile that a snapshot takes along: others may mean anything where it arrives."""


@dataclass(frozen=True, slots=True)
class Received:
    """A snapshot that has come."""

    snapshot: Snapshot
    fetched: int
    """Chunks that came now; an earlier try may have left some."""
    fetched_bytes: int
    timings: dict[str, float]
    """Milliseconds by phase."""


def pull_snapshot(
    store: SnapshotStore,
    reference: str,
    name: str | None,
    limits: Limits,
    *,
    insecure: bool = False,
    progress: Progress,
    stop: Stop,
) -> Received:
    """Pull the snapshot `reference` and call it `name`, or by the last part of the repository's path.

    Raises `ConflictError` (SNAPSHOT_ALREADY_EXISTS), `NotFoundError`, `RegistryError`, `UnavailableError`,
    `StorageError`, and `DataError` for what is damaged, or no snapshot; then there is none, and what came is kept for
    another try.
    """
    remote = parse_reference(reference)
    name = check_snapshot_name(name or remote.image_name())
    store.check_free(name)
    progress.phase("manifest", f"looking up {remote}")
    with Repository(remote, insecure=insecure, private_hosts=limits.private_hosts, sleep=stop.sleep) as repository:
        stop.add_callback(repository.abort)
        return _receive(store, Registry(repository), name, limits, progress=progress, stop=stop)


def load_snapshot(
    store: SnapshotStore, source: Path | str, name: str, limits: Limits, *, progress: Progress, stop: Stop
) -> Received:
    """Read the snapshot of the file `source`, or of stdin for ``-``, and call it `name`.  Raises as `pull_snapshot`."""
    check_snapshot_name(name)
    store.check_free(name)
    origin = "stdin" if str(source) == "-" else str(source)
    progress.phase("read", f"reading {origin}")
    scratch = store.scratch()
    reserve = Reserve(scratch, limits.disk_reserve)
    with blaming(origin), open_archive(source, scratch=scratch, reserve=reserve) as archive:
        return _receive(store, File(archive), name, limits, progress=progress, stop=stop)


def _receive(
    store: SnapshotStore, origin: Origin, name: str, limits: Limits, *, progress: Progress, stop: Stop
) -> Received:
    artifact = origin.artifact()
    egress = (_OFFLINE,) if _OFFLINE in (artifact.snapshot.egress or ()) else None
    snapshot = replace(artifact.snapshot, name=name, egress=egress)
    coming = sum(artifact.length(number) for number, _ in artifact.places)
    with store.receiving(digest_bytes(artifact.config()), snapshot) as made:
        with storage_errors(made), made.open("r+b", buffering=0) as file:
            here = os.fstat(file.fileno()).st_blocks * 512
            Reserve(store.scratch(), limits.disk_reserve).check(max(0, coming - here))
            progress.phase("chunks", f"fetching {origin.name}")
            writer = _Writer(origin, artifact, file.fileno(), Counter(progress, "writable layer", coming, stop))
            at_once(writer.chunk, range(len(artifact.chunks)), stop, most=AT_ONCE)
            os.fsync(file.fileno())
        progress.phase("commit", f"naming it {name}")
    return Received(snapshot, writer.fetched, writer.fetched_bytes, progress.finish())


class _Writer:
    """Puts chunks in their places on the disk `fd`; several threads may."""

    def __init__(self, origin: Origin, artifact: Artifact, fd: int, counter: Counter) -> None:
        self.fetched = 0
        self.fetched_bytes = 0
        self._origin = origin
        self._artifact = artifact
        self._fd = fd
        self._counter = counter
        self._lock = threading.Lock()
        self._places = defaultdict[int, list[int]](list)
        for number, index in artifact.places:
            self._places[index].append(number)

    def chunk(self, index: int) -> None:
        """Have one chunk in all its places."""
        artifact, chunk, numbers = self._artifact, self._artifact.chunks[index], self._places[index]
        missing = [number for number in numbers if not disk.has(self._fd, artifact, number, chunk.content)]
        if missing:
            what = f"chunk {short(chunk.blob.digest)} of {self._origin.name}"
            packed = self._origin.blob(chunk.blob)
            data = disk.unpack(packed, artifact.length(missing[0]), chunk.content, what)
            for number in missing:
                if artifact.length(number) != len(data):
                    raise DataError(f"{what} does not fit into its places", hint="get the snapshot again")
                disk.write(self._fd, number * artifact.chunk_bytes, data)
            with self._lock:
                self.fetched += 1
                self.fetched_bytes += len(packed)
        self._counter.add(sum(map(artifact.length, numbers)))
