"""Gives a stopped shed another name.

Its folders move in two steps, and its record changes between them.  A note of the new name in its folder comes first:
whoever takes hold of the shed after a crash goes on from there, or back when the new name was taken in the meantime.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from shed.backends.base import Liveness
from shed.backends.interface import Backend
from shed.errors import ConflictError, UsageError
from shed.fsutil import atomic_write, fsync_dir, storage_errors
from shed.names import check_shed_name
from shed.sheds import asleep, metadata
from shed.sheds.catalog import load
from shed.sheds.folders import Folders

log = logging.getLogger(__name__)


def check(folders: Folders, to: Folders, backend: Backend) -> None:
    """Raise `ConflictError` when the shed runs or is suspended, or the name is taken."""
    alive = backend.liveness(folders.instance)
    if alive is not Liveness.NOT_OURS:
        raise ConflictError(
            f"shed {folders.name!r} is running", code="SHED_NOT_STOPPED", hint=f"`shed stop {folders.name}` first"
        )
    if asleep.is_asleep(folders):
        raise ConflictError(
            f"shed {folders.name!r} is suspended, and goes on with the name that it has",
            code="SHED_SUSPENDED",
            hint=f"`shed resume {folders.name}`, stop it, and rename it then",
        )
    if to.instance.exists():
        raise ConflictError(
            f"there is a shed {to.name!r} already", code="SHED_ALREADY_EXISTS", hint="choose another name"
        )
    if to.upper.parent.exists():
        raise ConflictError(
            f"{to.upper.parent} is in the way: it belongs to no shed",
            code="UPPER_EXISTS",
            hint="move it away if it is precious, else remove it",
        )


def rename(folders: Folders, to: Folders) -> metadata.Record:
    """Call a stopped shed as `to` is called; return its new record.  Raises `DamagedError`, `StorageError`."""
    load(folders)
    atomic_write(folders.renaming, to.name, mode=0o600)
    return _finish(folders, to)


def go_on(folders: Folders, others: Folders) -> None:
    """Finish a rename that was cut short, or undo it when the new name, that of `others`, was taken.

    Raises `DamagedError`, `StorageError`.
    """
    if others.name != folders.name and not others.instance.exists():
        log.warning("shed %s: its rename to %s was cut short; finishing it", folders.name, others.name)
        _finish(folders, others)
        return
    with storage_errors(folders.instance):
        metadata.save(folders.instance, replace(load(folders), name=folders.name))
        folders.renaming.unlink()


def new_name(folders: Folders) -> str | None:
    """Return the name that a shed was about to get; None when it was not, its own when the note makes no sense."""
    try:
        return check_shed_name(folders.renaming.read_text(errors="replace"))
    except FileNotFoundError:
        return None
    except (OSError, UsageError):
        return folders.name


def _finish(folders: Folders, to: Folders) -> metadata.Record:
    """Do what is left.  Each step may have been done before."""
    with storage_errors(to.instance):
        if folders.upper.parent.exists():
            folders.upper.parent.rename(to.upper.parent)
            fsync_dir(to.upper.parent.parent)
        changed = replace(load(folders), name=to.name)
        metadata.save(folders.instance, changed)
        folders.instance.rename(to.instance)
        fsync_dir(to.instance.parent)
        to.renaming.unlink()
    return changed
