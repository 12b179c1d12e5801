"""Receiving a snapshot: chunk by chunk into a disk beside its place, which gets its name when it is complete.

What came is found again by its content: a pull that was cut goes on where it was.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path

from shed.budget import Limits, Reserve
from shed.errors import DataError, UsageError
from shed.fsutil import storage_errors
from shed.images.transfer import Counter, at_once
from shed.names import check_snapshot_name
from shed.oci.archive import blaming, open_archive
from shed.oci.digest import digest_bytes, short
from shed.oci.registry.client import Repository
from shed.oci.registry.reference import parse_reference
from shed.progress import Progress, Stop
from shed.sheds.artifact import disk
from shed.sheds.artifact.document import Artifact, Part
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
    memory: bool = False,
    insecure: bool = False,
    progress: Progress,
    stop: Stop,
) -> Received:
    """Pull the snapshot `reference`, with its `memory` if asked; call it `name`, or by the repository's last part.

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
        return _receive(store, Registry(repository), name, limits, memory=memory, progress=progress, stop=stop)


def load_snapshot(
    store: SnapshotStore,
    source: Path | str,
    name: str,
    limits: Limits,
    *,
    memory: bool = False,
    progress: Progress,
    stop: Stop,
) -> Received:
    """Read the snapshot of the file `source`, or of stdin for ``-``, and call it `name`.

    With its `memory` if asked.  Raises as `pull_snapshot`.
    """
    check_snapshot_name(name)
    store.check_free(name)
    origin = "stdin" if str(source) == "-" else str(source)
    progress.phase("read", f"reading {origin}")
    scratch = store.scratch()
    reserve = Reserve(scratch, limits.disk_reserve)
    with blaming(origin), open_archive(source, scratch=scratch, reserve=reserve) as archive:
        return _receive(store, File(archive), name, limits, memory=memory, progress=progress, stop=stop)


def _receive(
    store: SnapshotStore, origin: Origin, name: str, limits: Limits, *, memory: bool, progress: Progress, stop: Stop
) -> Received:
    artifact = origin.artifact()
    if memory and not artifact.memory:
        raise UsageError(f"{origin.name} has no memory", code="NO_MEMORY", hint="leave out --with-memory")
    parts = [artifact.disk, *(artifact.memory if memory else ())]
    egress = (_OFFLINE,) if _OFFLINE in (artifact.snapshot.egress or ()) else None
    snapshot = replace(artifact.snapshot, name=name, egress=egress, memory=artifact.snapshot.memory if memory else None)
    coming = sum(part.length(number) for part in parts for number, _ in part.places)
    with store.receiving(digest_bytes(artifact.config()), snapshot) as made:
        with storage_errors(made), contextlib.ExitStack() as stack:
            files = [(part, stack.enter_context(_file(made / part.name, part.size_bytes))) for part in parts]
            here = sum(os.fstat(file.fileno()).st_blocks * 512 for _, file in files)
            Reserve(store.scratch(), limits.disk_reserve).check(max(0, coming - here))
            progress.phase("chunks", f"fetching {origin.name}")
            what = "disk and memory" if memory else "writable layer"
            writer = _Writer(origin, artifact, files, Counter(progress, what, coming, stop))
            at_once(writer.chunk, writer.wanted(), stop, most=AT_ONCE)
            for _, file in files:
                os.fsync(file.fileno())
        progress.phase("commit", f"naming it {name}")
    return Received(snapshot, writer.fetched, writer.fetched_bytes, progress.finish())


def _file(path: Path, size: int) -> FileIO:
    """Return the file `path` of `size` bytes, with what an earlier try has left in it."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.touch()
    file = FileIO(path, "r+")
    file.truncate(size)
    return file


class _Writer:
    """Puts chunks in their places in `files`; several threads may."""

    def __init__(
        self, origin: Origin, artifact: Artifact, files: Sequence[tuple[Part, FileIO]], counter: Counter
    ) -> None:
        self.fetched = 0
        self.fetched_bytes = 0
        self._origin = origin
        self._artifact = artifact
        self._counter = counter
        self._lock = threading.Lock()
        self._places = defaultdict[int, list[tuple[Part, int, int]]](list)
        for part, file in files:
            for number, index in part.places:
                self._places[index].append((part, file.fileno(), number))

    def wanted(self) -> list[int]:
        """Return which chunks have a place."""
        return sorted(self._places)

    def chunk(self, index: int) -> None:
        """Have one chunk in all its places."""
        chunk, places = self._artifact.chunks[index], self._places[index]
        missing = [place for place in places if not disk.has(place[1], place[0], place[2], chunk.content)]
        if missing:
            what = f"chunk {short(chunk.blob.digest)} of {self._origin.name}"
            packed = self._origin.blob(chunk.blob)
            first, _, number = missing[0]
            data = disk.unpack(packed, first.length(number), chunk.content, what)
            for part, fd, number in missing:
                if part.length(number) != len(data):
                    raise DataError(f"{what} does not fit into its places", hint="get the snapshot again")
                disk.write(fd, number * part.chunk_bytes, data)
            with self._lock:
                self.fetched += 1
                self.fetched_bytes += len(packed)
        self._counter.add(sum(part.length(number) for part, _, number in places))
