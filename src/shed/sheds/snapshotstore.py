"""Snapshots on disk: what a shed had written at one moment, never changed afterwards.

```
snapshots/NAME/snapshot.json   the record: version 2 of the schema that the implementation in Go has
snapshots/NAME/upper.ext4      the writable layer, a clone; mode 0400
snapshots/NAME/memory/         what was in memory at the same moment, if it is kept; the backend knows what is in there
snapshots/.NAME.*.new/         one that is being made, locked by who makes it; renamed to NAME when it is complete
snapshots/.NAME.*.gone/        one that is being removed
snapshots/.DIGEST.part/        what has come of one that is pulled, locked by who pulls it; kept for a week
```

A snapshot needs the image that its shed was made from: `shed.sheds.pins` keeps that.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from shed.backends.interface import OF_THIS_HOST, Shape
from shed.config.paths import Paths
from shed.errors import ConflictError, DataError, NotFoundError, ShedError, UsageError
from shed.fsutil import atomic_write, fsync_dir, private_folder, storage_errors
from shed.names import check_snapshot_name
from shed.oci.digest import Digest, hex_of
from shed.oci.fields import Fields, decode_object
from shed.progress import Progress, Stop
from shed.sheds.pins import SNAPSHOT
from shed.sheds.space import Space, measure
from shed.sheds.upper import clone

log = logging.getLogger(__name__)
_T = TypeVar("_T")
VERSION = 2
UPPER, MEMORY = "upper.ext4", "memory"
_MOST_RECORD = 1 << 20
_KEEP_PARTS = 7 * 86400
"""Seconds that what an interrupted pull has left is kept for the next one."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot.  `lower_digest` pins the image's manifest."""

    name: str
    backend: str
    source_shed: str
    source_image: str
    """The reference that the user of the shed asked for; for display."""
    created_at: str
    """UTC, RFC 3339."""
    lower_digest: str
    size_bytes: int
    """Size of the writable layer, holes included."""
    comment: str = ""
    egress: tuple[str, ...] | None = None
    """Profiles that ruled what the shed reached, and what a shed made from this does unless it is told otherwise.

    None: in a record of another implementation, which has no such thing.
    """
    memory: Shape | None = None
    """The shape of the VM whose memory is kept, too, if it is."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a new shed begins with."""

    snapshot: Snapshot
    upper: Path
    memory: Path
    """What goes with `Snapshot.memory`."""


class SnapshotStore:
    """The snapshots below `paths`."""

    def __init__(self, paths: Paths) -> None:
        self._folder = paths.snapshots

    def save(self, snapshot: Snapshot, upper: Path, progress: Progress, stop: Stop) -> None:
        """Keep `snapshot`, with a clone of the writable layer `upper`, which nobody writes to meanwhile.

        Raises `ConflictError` (SNAPSHOT_ALREADY_EXISTS), `StorageError`, and what `stop` does; then nothing is left.
        """
        self.check_free(snapshot.name)
        with self.draft(snapshot.name) as made:
            clone(upper, made / UPPER, snapshot.size_bytes, progress, stop)
            self.publish(made, snapshot)

    @contextlib.contextmanager
    def receiving(self, key: Digest, snapshot: Snapshot) -> Iterator[Path]:
        """Yield the folder of `snapshot`, to be filled in the block, at whose end it gets its name.

        What a block that failed has written is there again for the next one with the same `key`, for a week.  Raises
        `ConflictError` (SNAPSHOT_ALREADY_EXISTS, LOCKED while another one fills it) and `StorageError`.
        """
        folder = self.scratch() / f".{hex_of(key)}.part"
        with storage_errors(folder):
            folder.mkdir(mode=0o700, exist_ok=True)
            with _locked(folder) as free:
                if not free:
                    raise ConflictError(f"{snapshot.name} is on its way already", code="LOCKED", hint="wait for it")
                yield folder
                if snapshot.memory is None:  # an earlier try may have wanted it
                    shutil.rmtree(folder / MEMORY, ignore_errors=True)
                self.publish(folder, snapshot)

    def check_free(self, name: str) -> None:
        """Raise `ConflictError` (SNAPSHOT_ALREADY_EXISTS) when there is a snapshot `name`."""
        if (self._folder / name).exists():
            raise ConflictError(
                f"there is a snapshot {name!r} already",
                code="SNAPSHOT_ALREADY_EXISTS",
                hint=f"choose another name, or remove it: shed snapshot rm {name}",
            )

    def scratch(self) -> Path:
        """Return the folder of all snapshots, which is there then."""
        private_folder(self._folder)
        return self._folder

    @contextlib.contextmanager
    def draft(self, name: str) -> Iterator[Path]:
        """Have a folder for what a snapshot is to have, which is gone afterwards unless it was published.

        Raises `StorageError`.
        """
        with storage_errors(self._folder / name), _fresh(self.scratch(), f".{name}.") as made:
            yield made

    def publish(self, made: Path, snapshot: Snapshot) -> None:
        """Give the folder `made`, which has the disk, its record and its name.

        Raises `ConflictError` (SNAPSHOT_ALREADY_EXISTS), `StorageError`.
        """
        with storage_errors(self._folder / snapshot.name):
            for path in (made / UPPER, *(made / MEMORY).glob("*")):
                path.chmod(0o400)
            if (made / MEMORY).exists():
                fsync_dir(made / MEMORY)
            members = {key: value for key, value in asdict(snapshot).items() if value is not None}
            atomic_write(made / SNAPSHOT, json.dumps({"version": VERSION, **members}, indent=2) + "\n")
            fsync_dir(made)
            try:
                made.rename(self._folder / snapshot.name)
            except OSError:
                self.check_free(snapshot.name)
                raise
            fsync_dir(self._folder)

    def load(self, name: str) -> Snapshot:
        """Return the snapshot `name`.  Raises `NotFoundError`, `DataError` (SNAPSHOT_DAMAGED)."""
        folder = self._folder / check_snapshot_name(name)
        if not folder.exists():
            raise missing(name)
        path = folder / SNAPSHOT
        try:
            with path.open("rb") as file:
                return _parsed(name, file.read(_MOST_RECORD))
        except OSError as error:
            raise _damaged(name, f"{path}: {error.strerror}") from None
        except DataError as error:
            raise _damaged(name, error.message) from None

    def all(self) -> tuple[list[Snapshot], list[str]]:
        """Return all snapshots by name, and a sentence for each that cannot be read."""
        return readable(self.names(), self.load)

    def names(self) -> list[str]:
        """Return the names of all snapshots, sorted."""
        if not self._folder.is_dir():
            return []
        return sorted(path.name for path in self._folder.iterdir() if not path.name.startswith(".") and path.is_dir())

    def upper(self, name: str) -> Path:
        """Return the writable layer of a snapshot."""
        return self._folder / name / UPPER

    def files(self, name: str, *, memory: bool) -> tuple[Snapshot, dict[str, Path]]:
        """Return a snapshot, and by their names in its folder the files that go where it is sent, its disk first.

        Without `memory` it has none there.  Raises `UsageError` (NO_MEMORY), and as `load` does.
        """
        snapshot, folder = self.load(name), self._folder / name
        found = {UPPER: folder / UPPER}
        if not memory:
            return replace(snapshot, memory=None), found
        if snapshot.memory is None:
            raise UsageError(f"the snapshot {name!r} has no memory", code="NO_MEMORY", hint="leave out --with-memory")
        here = sorted(path.name for path in (folder / MEMORY).iterdir() if path.suffix != OF_THIS_HOST)
        return snapshot, found | {f"{MEMORY}/{each}": folder / MEMORY / each for each in here}

    def origin(self, name: str) -> Origin:
        """Return what a shed begins with that is made from a snapshot.  Raises as `load` does."""
        return origin_in(self._folder / name, self.load(name))

    def space(self, name: str) -> Space:
        """Return what a snapshot takes up."""
        return measure(self._folder / name)

    def since(self, name: str) -> float:
        """Return since when a snapshot is here, in seconds of the epoch; now, when it is not."""
        try:
            return (self._folder / name / SNAPSHOT).stat().st_mtime
        except OSError:
            return time.time()

    def remove(self, name: str) -> None:
        """Remove a snapshot, also a damaged one.  Raises `NotFoundError`, `StorageError`."""
        folder = self._folder / check_snapshot_name(name)
        if not folder.exists():
            raise missing(name)
        with storage_errors(folder):
            gone = Path(tempfile.mkdtemp(suffix=".gone", prefix=f".{name}.", dir=self._folder))
            try:
                folder.rename(gone)
            except FileNotFoundError:
                raise missing(name) from None
            finally:
                fsync_dir(self._folder)
                shutil.rmtree(gone)

    def sweep(self) -> None:
        """Remove what was left by servers that ended while they made or removed a snapshot, and old parts of pulls."""
        if not self._folder.is_dir():
            return
        for path in list(self._folder.iterdir()):
            old = path.suffix == ".part" and path.stat().st_mtime < time.time() - _KEEP_PARTS
            if path.name.startswith(".") and (old or path.suffix in {".new", ".gone"}) and path.is_dir():
                with contextlib.suppress(OSError), _locked(path) as free:
                    if free:
                        log.warning("removing what is left of a snapshot: %s", path)
                        shutil.rmtree(path)


def readable(names: Iterable[str], load: Callable[[str], _T]) -> tuple[list[_T], list[str]]:
    """Return what `load` makes of each name, and a sentence for each that cannot be read; what has just gone is not."""
    found, warnings = [], []
    for name in names:
        try:
            found.append(load(name))
        except NotFoundError:
            continue
        except ShedError as error:
            warnings.append(error.message)
    return found, warnings


def origin_in(folder: Path, snapshot: Snapshot) -> Origin:
    """Return what a shed begins with that is made from the snapshot in `folder`."""
    return Origin(snapshot, folder / UPPER, folder / MEMORY)


def missing(name: str) -> NotFoundError:
    """Return the error for a name that no snapshot has."""
    return NotFoundError(
        f"there is no snapshot {name!r}", code="SNAPSHOT_NOT_FOUND", hint="`shed snapshot ls` shows what there is"
    )


def _damaged(name: str, why: str) -> DataError:
    return DataError(
        f"the snapshot {name!r} cannot be used: {why}",
        code="SNAPSHOT_DAMAGED",
        hint=f"repair the file, or remove the snapshot: shed snapshot rm {name}",
    )


def _parsed(name: str, data: bytes) -> Snapshot:
    what = f"the record of snapshot {name!r}"
    values = decode_object(data, what)
    record = Fields(values, what)
    if record.integer("version") != VERSION:
        raise DataError(f"{what} has version {values.get('version')!r}, not {VERSION}")
    if record.text("name") != name:
        raise DataError(f"{what} names {values['name']!r}")
    egress = values.get("egress")
    if egress is not None and not (isinstance(egress, list) and all(isinstance(each, str) for each in egress)):
        raise record.wrong("egress", "a list of names")
    return Snapshot(
        name,
        record.text("backend"),
        record.text("source_shed"),
        record.text("source_image"),
        record.text("created_at"),
        record.text("lower_digest"),
        record.integer("size_bytes"),
        record.text("comment", ""),
        None if egress is None else tuple(egress),
        _memory(values.get("memory"), what),
    )


def _memory(value: object, what: str) -> Shape | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise DataError(f"{what}: memory is no object")
    shape = Fields(value, f"the memory in {what}")
    return Shape(shape.integer("cpus"), shape.integer("memory_mb"))


@contextlib.contextmanager
def _fresh(parent: Path, prefix: str) -> Iterator[Path]:
    """Have a new folder of mode 0700, locked in the block, which is removed unless it has another name at the end."""
    folder = Path(tempfile.mkdtemp(suffix=".new", prefix=prefix, dir=parent))
    try:
        with _locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder, if it is free: say whether it was."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
