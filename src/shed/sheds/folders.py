"""Where a shed is on disk, and how its name is held.

```
instances/.NAME.lock        flock: one operation at a time, also between servers; never removed
instances/.NAME.new/        a reservation before it has its name; renamed to NAME with the marker in it
instances/NAME/             .creating (until the create is done), metadata.json, console.log, the backend's record,
                            .renaming (the name that it is about to get; see `shed.sheds.rename`),
                            memory/ (of a suspended shed; see `shed.sheds.asleep`)
instances/.NAME.gone/       a delete that has begun: the shed no longer exists, its upper is still to be removed
uppers/NAME/upper.ext4      the writable layer
logs/NAME-TIME.log          console log of a start that failed
```

A shed exists from the first rename to the second.  Every state that a crash can leave is one of these, and `leftovers`
finds it.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from shed.config.paths import Paths
from shed.errors import ConflictError, StorageError
from shed.fsutil import atomic_write, fsync_dir, locked, private_folder, storage_errors
from shed.sheds import metadata

_UNFINISHED = (metadata.MARKER, metadata.RENAMING, *metadata.MEMORY_LEFT)
_KEPT_LOG = 1 << 20
"""Most bytes of a console log that are kept or shown: its end."""


class Folders:
    """The places of the shed `name` below `paths`."""

    def __init__(self, paths: Paths, name: str) -> None:
        self.name = name
        self._paths = paths
        self.instance = paths.instances / name
        self.reservation = paths.instances / f".{name}.new"
        self.renaming = self.instance / metadata.RENAMING
        self.memory = self.instance / metadata.MEMORY
        self.new_memory, self.used_memory = (self.instance / mark for mark in metadata.MEMORY_LEFT)
        self.gone = paths.instances / f".{name}.gone"
        self.upper = paths.uppers / name / "upper.ext4"
        self.console = self.instance / "console.log"
        self.templates = paths.templates
        self.images = paths.images

    def of(self, name: str) -> Folders:
        """Return the places of another shed."""
        return Folders(self._paths, name)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the name against every other server of this data folder.

        Raises `ConflictError` (SHED_BUSY) when one has it.
        """
        try:
            with locked(self._paths.instances / f".{self.name}.lock", wait=False):
                yield
        except ConflictError as error:
            if error.code != "LOCKED":
                raise
            raise ConflictError(
                f"another server is working on shed {self.name!r}", code="SHED_BUSY", hint="try again shortly"
            ) from None

    def reserve(self, marker: metadata.Marker) -> None:
        """Take the name: the instance folder appears with its marker in it, in one step."""
        with storage_errors(self.instance):
            self.reservation.mkdir(mode=0o700)
        metadata.save_marker(self.reservation, marker)
        with storage_errors(self.instance):
            self.reservation.rename(self.instance)
            fsync_dir(self.instance.parent)

    def commit(self) -> None:
        """End the create: from now on the shed stays."""
        with storage_errors(self.instance):
            (self.instance / metadata.MARKER).unlink()
            fsync_dir(self.instance)

    def remove(self) -> None:
        """Remove the shed and all it owns.  Its VM must be gone."""
        self.remove_leftovers()
        with storage_errors(self.instance):
            if self.instance.exists():
                self.instance.rename(self.gone)
                fsync_dir(self.gone.parent)
        self.remove_leftovers()

    def remove_leftovers(self) -> None:
        """Complete a removal that has begun, and drop a reservation that was not made."""
        with storage_errors(self.instance):
            if self.reservation.exists():
                shutil.rmtree(self.reservation)
            if self.gone.exists():
                if self.upper.parent.exists():
                    shutil.rmtree(self.upper.parent)
                shutil.rmtree(self.gone)

    def console_tail(self) -> tuple[bytes, int]:
        """Return the end of the VM's console log, and where in the file that ends; nothing and 0 when there is none."""
        try:
            with self.console.open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - _KEPT_LOG))
                return file.read(_KEPT_LOG), file.tell()
        except FileNotFoundError:
            return b"", 0

    def keep_console(self) -> Path | None:
        """Copy the console log to the logs directory and return its path; None when it is empty or cannot be copied."""
        tail, _ = self.console_tail()
        if not tail:
            return None
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        target = self._paths.logs / f"{self.name}-{stamp}.log"
        try:
            atomic_write(target, tail)
        except StorageError:  # most likely the full disk that made the start fail; the error itself must still be told
            return None
        return target


def prepare(paths: Paths) -> None:
    """Make the folders that sheds live in, and close to others those that an earlier version has left open.

    Raises `StorageError`.
    """
    for folder in (paths.data, paths.images, paths.instances, paths.uppers, paths.templates, paths.spares, paths.logs):
        private_folder(folder)


def names(paths: Paths) -> list[str]:
    """Return the names of all instance folders, sorted, unfinished ones too."""
    if not paths.instances.is_dir():
        return []
    return sorted(path.name for path in paths.instances.iterdir() if not path.name.startswith(".") and path.is_dir())


def leftovers(paths: Paths) -> list[str]:
    """Return the names of all sheds with something unfinished.

    That is a marked create, a reservation, a begun delete or rename, or memory that is of no use.
    """
    found = {name for name in names(paths) if any((paths.instances / name / mark).exists() for mark in _UNFINISHED)}
    for path in paths.instances.iterdir():
        if path.name.startswith(".") and path.suffix in {".new", ".gone"}:
            found.add(path.name[1:].removesuffix(path.suffix))
    return sorted(found)
