"""Changes to a shed that is there: its processors, its memory, its disk, its end, and where it may use SSH agents."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from shed.api.making import UpdateShed
from shed.api.sheds import MAX_LABELS, MAX_TTL
from shed.backends.base import Liveness
from shed.backends.interface import Backend
from shed.errors import BackendError, ConflictError, UsageError
from shed.fsutil import storage_errors
from shed.progress import Progress
from shed.sheds import agentrule, asleep, expiry, idle, metadata
from shed.sheds.agent import control
from shed.sheds.catalog import load
from shed.sheds.create import checked_variables
from shed.sheds.folders import Folders
from shed.sheds.lifecycle import in_doubt
from shed.sheds.link import Link
from shed.sizes import format_size
from shed.threads import in_thread

_GROW = 60.0
"""Seconds for the guest to grow its file system; it writes little."""


async def update(
    wanted: UpdateShed, folders: Folders, backend: Backend, link: Link, progress: Progress
) -> metadata.Record:
    """Change what `wanted` names of a shed, and return its new record.

    Processors and memory count from the next start on.  The disk grows at once, also while the shed runs; the hosts of
    its SSH agents change at once.  Raises `UsageError` for a smaller disk and for what is no host, `ConflictError` for
    a VM of which it cannot be told whether it runs, and for a larger disk of a suspended shed.
    """
    record = load(folders)
    alive = backend.liveness(folders.instance)
    if alive is Liveness.UNKNOWN:
        raise in_doubt(record.name, backend.pid(folders.instance))
    size = wanted.upper_size_bytes or record.upper_size_bytes
    if size < record.upper_size_bytes:
        raise UsageError(
            f"the disk of shed {record.name!r} has {format_size(record.upper_size_bytes)} and cannot be made smaller",
            hint="make a new shed, and copy what you need: shed cp",
        )
    if wanted.ttl is not None and not 0 <= wanted.ttl <= MAX_TTL:
        raise expiry.impossible(wanted.ttl)
    changed = replace(
        record,
        restart=wanted.restart or record.restart,
        expires_at=record.expires_at if wanted.ttl is None else expiry.after(wanted.ttl),
        ttl_action=expiry.action(wanted.ttl_action or record.ttl_action, shares=bool(record.shared)),
        idle_suspend=record.idle_suspend
        if wanted.idle_suspend is None
        else idle.chosen(wanted.idle_suspend, 0, record.network, shares=bool(record.shared)),
        cpus=wanted.cpus or record.cpus,
        memory_mb=wanted.memory_mb or record.memory_mb,
        upper_size_bytes=size,
        labels=_labels(record, wanted),
        variables=checked_variables(_without(record.variables, wanted.no_env) | (wanted.env or {})),
        ssh_agent=record.ssh_agent if wanted.ssh_agent is None else agentrule.checked(wanted.ssh_agent) or None,
    )
    sleeps = alive is Liveness.NOT_OURS and asleep.is_asleep(folders)
    if size > record.upper_size_bytes and sleeps:
        raise ConflictError(
            f"shed {record.name!r} is suspended, and goes on with the disk that it has",
            code="SHED_SUSPENDED",
            hint=f"`shed resume {record.name}` first",
        )
    if size > record.upper_size_bytes:
        progress.phase("disk", "growing the disk")
        await in_thread(_lengthen, folders.upper, size)  # the record follows: a longer disk than it says does no harm
    await in_thread(metadata.save, folders.instance, changed)
    if alive is Liveness.OURS and size > record.upper_size_bytes:
        await _grow(changed, folders, backend, link, progress)
    if (alive is Liveness.OURS or sleeps) and (changed.cpus, changed.memory_mb) != (record.cpus, record.memory_mb):
        progress.warn(f"processors and memory change at the next start: shed restart {record.name}")
    return changed


def _labels(record: metadata.Record, wanted: UpdateShed) -> dict[str, str] | None:
    """Return the labels that a shed has then.  Raises `UsageError` when they are too many."""
    found = _without(record.labels, wanted.no_labels) | (wanted.labels or {})
    if len(found) > MAX_LABELS:
        raise UsageError(f"a shed cannot have {len(found)} labels", hint=f"take {MAX_LABELS} at most")
    return found or None


def _without(had: dict[str, str] | None, names: Sequence[str] | None) -> dict[str, str]:
    return {name: value for name, value in (had or {}).items() if name not in (names or ())}


def _lengthen(path: Path, size: int) -> None:
    with storage_errors(path), path.open("r+b") as file:
        if os.fstat(file.fileno()).st_size < size:
            file.truncate(size)
            os.fsync(file.fileno())


async def _grow(record: metadata.Record, folders: Folders, backend: Backend, link: Link, progress: Progress) -> None:
    """Have the running guest use the longer disk.  Where it cannot, a warning says that it does at its next start."""
    try:
        disks = backend.capabilities.growing
        if disks is None:
            raise BackendError("its backend cannot do that while it runs")
        await disks.grow(folders.instance, 0, record.upper_size_bytes)
        await control(await link.get(), "grow", wait=_GROW, size=record.upper_size_bytes)
    except BackendError as error:
        progress.warn(f"the disk has its new size from the next start on: {error.message}; shed restart {record.name}")
