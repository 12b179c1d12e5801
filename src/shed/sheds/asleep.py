"""The memory of a suspended shed on disk.

```
instances/NAME/memory/          what goes on when the shed is resumed; the backend knows what is in there
instances/NAME/memory/shed.json since when, and the shape of the VM
instances/NAME/.memory.new/     one that is being written
instances/NAME/.memory.used/    one that is of no use any more: the shed has gone on from it, or it was dropped
```

While ``memory`` is there, the VM has not run since it was written: it gets that name when it is complete, and loses it
before the VM runs.  So whatever ends in between, nothing goes on from it twice, or with a disk that is newer.  A VM
that is still there beside it stands still, and is ended by whoever takes hold of the shed next.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from shed.backends.interface import Shape
from shed.errors import DataError
from shed.fsutil import atomic_write, fsync_dir, storage_errors
from shed.oci.fields import Fields, decode_object
from shed.sheds import metadata
from shed.sheds.folders import Folders

_RECORD = "shed.json"
BY = ("command", "idle", "ttl")
"""What suspends a shed: somebody, nobody, or its time."""


@dataclass(frozen=True, slots=True)
class Asleep:
    """Since when a shed is suspended (as `metadata.Record.created_at`), the shape of its VM, and what suspended it."""

    since: str
    cpus: int
    memory_mb: int
    by: str = ""
    """One of `BY`; empty in what an earlier version has written."""

    @property
    def shape(self) -> Shape:
        """Return the shape of the VM that goes on."""
        return Shape(self.cpus, self.memory_mb)


def is_asleep(folders: Folders) -> bool:
    """Say whether the memory of a shed is kept, from which it goes on: it is suspended, unless its VM runs."""
    return folders.memory.exists()


def load(folders: Folders) -> Asleep:
    """Return what is known of a suspended shed.  Raises `DamagedError` for a record that cannot be read."""
    path, what = folders.memory / _RECORD, f"what is kept of the suspended shed {folders.name!r}"
    try:
        record = Fields(decode_object(path.read_bytes(), what), what)
        by = record.text("by", "")
        return Asleep(record.text("since"), record.integer("cpus"), record.integer("memory_mb"), by if by in BY else "")
    except (OSError, DataError) as error:
        why = error.message if isinstance(error, DataError) else f"{path}: {error.strerror}"
        hint = f"boot its disk, without what ran there: shed start --no-memory {folders.name}"
        raise metadata.DamagedError(f"shed {folders.name!r} cannot go on: {why}", hint=hint) from None


def begin(folders: Folders) -> Path:
    """Return an empty folder for the memory of a shed.  Raises `StorageError`."""
    clear(folders)
    with storage_errors(folders.new_memory):
        folders.new_memory.mkdir(mode=0o700)
    return folders.new_memory


def commit(folders: Folders, shape: Shape, by: str) -> None:
    """Have the shed be suspended, by one of `BY`, with what is in the folder of `begin`.  Raises `StorageError`."""
    with storage_errors(folders.memory):
        record = asdict(Asleep(metadata.now(), shape.cpus, shape.memory_mb, by))
        atomic_write(folders.new_memory / _RECORD, json.dumps(record) + "\n", mode=0o400)
        folders.new_memory.rename(folders.memory)
        fsync_dir(folders.instance)


def use(folders: Folders) -> None:
    """Have nothing go on from the memory of a shed any more; it is still on the disk.  Raises `StorageError`."""
    with storage_errors(folders.memory):
        clear(folders)
        folders.memory.rename(folders.used_memory)
        fsync_dir(folders.instance)


def drop(folders: Folders) -> bool:
    """Remove the memory of a shed; return whether there was any.  Raises `StorageError`."""
    found = is_asleep(folders)
    if found:
        use(folders)
    clear(folders)
    return found


def clear(folders: Folders) -> None:
    """Remove memory that is of no use.  Raises `StorageError`."""
    with storage_errors(folders.instance):
        for folder in (folders.new_memory, folders.used_memory):
            if folder.exists():
                shutil.rmtree(folder)
