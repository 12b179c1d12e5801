"""What crashes have left behind: files whose owner is gone.

Something is an orphan only when all three hold: what it belongs to does not exist, nobody holds the lock of that, and
it has not been touched for an hour.  Lock files are never orphans.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from shed.backends.interface import Templates
from shed.config.paths import Paths
from shed.fsutil import storage_errors
from shed.images.service import Images
from shed.sheds import upper
from shed.sheds.space import NOTHING, Space, measure

OLD = 3600.0
"""Seconds without a change after which nobody is still at work on it."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """A file or folder that belongs to nobody."""

    path: Path
    kind: str
    """``upper``, ``instance`` (what a create or a delete that was cut short has left), ``template`` or
    ``temporary``.
    """
    lock: Path
    """Whoever holds this is at work on it; of a temporary file, itself."""
    owners: tuple[Path, ...] = ()
    """What it would belong to, were it there."""
    space: Space = NOTHING


def find_orphans(paths: Paths, saved: Templates | None, *, gone: Collection[Path] = ()) -> list[Orphan]:
    """Return what belongs to nobody, in the order of its paths; owners in `gone` count as not there.

    `saved` has the templates of VMs, if the backend makes any.
    """
    candidates = sorted(
        (*_uppers(paths), *_instances(paths), *_templates(paths, saved), *_temporaries(paths)),
        key=lambda orphan: orphan.path,
    )
    found = [orphan for orphan in candidates if _is_left(orphan, gone) and _is_free(orphan)]
    return [replace(orphan, space=measure(orphan.path)) for orphan in found]


def remove_orphan(orphan: Orphan) -> bool:
    """Remove it, unless it found an owner meanwhile; tell whether it is gone.  Raises `StorageError`."""
    with storage_errors(orphan.path):
        if orphan.lock != orphan.path:
            orphan.lock.touch()  # whoever comes next must find it held
        with holding(orphan.lock) as free:
            if not free or not _is_left(orphan, ()):
                return False
            if orphan.path.is_dir() and not orphan.path.is_symlink():
                shutil.rmtree(orphan.path)
            else:
                orphan.path.unlink()
    return True


def _uppers(paths: Paths) -> Iterator[Orphan]:
    for path in _entries(paths.uppers):
        owners = (
            paths.instances / path.name,
            paths.instances / f".{path.name}.new",
            paths.instances / f".{path.name}.gone",
        )
        yield Orphan(path, "upper", paths.instances / f".{path.name}.lock", owners)


def _instances(paths: Paths) -> Iterator[Orphan]:
    for path in _entries(paths.instances):
        name = path.name[1:].removesuffix(path.suffix)
        if path.name.startswith(".") and path.suffix in {".new", ".gone"} and path.is_dir():
            yield Orphan(path, "instance", paths.instances / f".{name}.lock")


def _templates(paths: Paths, saved: Templates | None) -> Iterator[Orphan]:
    """Yield the templates; each belongs to a runtime in the store, and is made again when that comes back."""
    blobs = Images(paths.images).store.blobs
    for path in _entries(paths.templates):
        if runtime := upper.runtime_of(path):
            yield Orphan(path, "template", paths.templates / ".lock", (blobs / runtime,))
    for template in saved.stored() if saved is not None else ():
        owners = () if template.runtime is None else (blobs / template.runtime,)
        yield Orphan(template.path, "template", template.lock, owners)


def _temporaries(paths: Paths) -> Iterator[Orphan]:
    """Yield what atomic writes, and the making of blobs, never gave its name."""
    images = paths.images
    places = [
        images,
        images / "blobs/sha256",
        images / "tags",
        images / "refs",
        images / "verified",
        paths.templates,
        paths.logs,
    ]
    for parent in (paths.instances, paths.uppers, paths.snapshots):
        places += [path for path in (parent, *_entries(parent)) if path.is_dir()]
    for place in places:
        for path in _entries(place):
            if path.name.startswith(".") and path.suffix == ".tmp":
                yield Orphan(path, "temporary", path)


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _is_left(orphan: Orphan, gone: Collection[Path]) -> bool:
    """Tell whether it has no owner, and has not been touched for long."""
    if any(os.path.lexists(owner) for owner in orphan.owners if owner not in gone):
        return False
    try:
        return orphan.path.lstat().st_mtime < time.time() - OLD
    except FileNotFoundError:
        return False


def _is_free(orphan: Orphan) -> bool:
    with holding(orphan.lock) as free:
        return free


@contextlib.contextmanager
def holding(lock: Path) -> Iterator[bool]:
    """Hold `lock`, a file or a folder, as long as the block lasts; yield whether nobody else has it.

    Nobody has one that is not there.
    """
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        yield free
    finally:
        os.close(fd)
