"""Keeping what a running machine is at one moment: its first disk and its memory.

The disk is mirrored while the machine runs, until the copy is the same and stays so.  Then the machine is stopped, the
mirror ends, the memory is saved, and it goes on.  So the machine stands still for as long as its memory takes, whatever
its disk has; no write of the machine ever depends on the copy; and nothing is left that a crash could cut.

QEMU takes what its versions call different things; this uses what 7.2 and its successors have in common.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from shed.backends.qemu import command, saving
from shed.backends.qemu.monitor import Monitor, MonitorError, connected
from shed.errors import StorageError
from shed.fsutil import FICLONE
from shed.threads import to_the_end
from shed.untrusted import told

_JOB = _NODE = "keep"
_CHANNEL = "memory"
_POLL, _OFTEN = 0.05, 0.002
"""Seconds between looks, while the machine runs and while it stands still."""
_UNBOUNDED = 1 << 40
"""Bytes a second that the memory is saved with; the usual bound is for networks."""
_STANDS_STILL = frozenset({"paused", "finish-migrate", "postmigrate"})
"""The last two: its memory is being saved, or is saved."""
_OVER = frozenset({None, "none", "completed", "failed", "cancelled"})
_NO_SPACE = os.strerror(errno.ENOSPC)

Still = Callable[[], AbstractAsyncContextManager[None]]
Tell = Callable[[int, int], None]
"""Hears how many bytes of how many are copied.  What it raises ends the work."""


async def keep(state_dir: Path, source: Path, disk: Path, memory: Path | None, *, still: Still, tell: Tell) -> None:
    """Make `disk` what `source`, the first disk of the running machine of `state_dir`, is at one moment.

    `memory` becomes its memory at the same moment, as a stream of QEMU's, if it is given.  Both are new files.  `still`
    is around the moment.  The machine runs on in any case.  Raises `MonitorError`, `OSError`, `StorageError`, and what
    `still` and `tell` do.
    """
    async with connected(state_dir) as monitor:
        await _running(monitor)
        with disk.open("xb") as file:
            clones = await asyncio.to_thread(_begin, source, file.fileno())
            try:
                if not clones:
                    await _mirror(monitor, disk, tell)
                async with still(), _stopped(monitor):
                    if clones and not await asyncio.to_thread(_clone, source, file.fileno()):
                        raise MonitorError("the disk could be cloned a moment ago, and now it cannot")
                    if not clones:
                        await _end_mirror(monitor)
                    if memory is not None:
                        await _save(monitor, memory)
            finally:
                await clear(monitor)
            await asyncio.to_thread(os.fsync, file.fileno())


async def suspend(state_dir: Path, memory: Path, finish: Callable[[], Awaitable[None]]) -> None:
    """Make the new file `memory` what is in the memory of the machine of `state_dir`, which stands still afterwards.

    `finish` is awaited, to its end, once the file is complete.  If anything fails, or it is cancelled before `finish`
    has succeeded, the machine runs on.  Raises `MonitorError`, `OSError`, and what `finish` does.
    """
    finished = False

    async def to_finish() -> None:
        nonlocal finished
        await finish()
        finished = True

    async with connected(state_dir) as monitor:
        await _running(monitor)
        try:
            await monitor.execute("stop")
            await _save(monitor, memory)
            await to_the_end(to_finish())
        except BaseException:
            if not finished:
                await to_the_end(_go_on(monitor))
            raise


async def goes_on(state_dir: Path) -> bool:
    """Tell whether the machine of `state_dir` runs, and have it run if it only stands still.

    One that waits for a state cannot.  What a keeping that was cut short has left is ended.

    Raises `MonitorError` and `OSError`.
    """
    async with connected(state_dir) as monitor:
        status = (await monitor.execute("query-status")).get("status")
        if status == "inmigrate":
            return False
        await clear(monitor)
        if status in _STANDS_STILL:
            await _go_on(monitor)
        return True


async def _running(monitor: Monitor) -> None:
    """Raise `MonitorError` for a machine that does not run."""
    await clear(monitor)
    if (status := (await monitor.execute("query-status"))["status"]) != "running":
        raise MonitorError(f"the machine is not running but {told(status)}")


async def clear(monitor: Monitor) -> None:
    """End what is left of a keeping that was given up.  Raises `MonitorError`."""
    for job in await monitor.listed("query-jobs"):
        if job.get("id") == _JOB:
            if job.get("status") != "concluded":
                await monitor.execute("block-job-cancel", device=_JOB, force=True)
                await _concluded(monitor)
            await monitor.execute("job-dismiss", id=_JOB)
    with contextlib.suppress(MonitorError):  # there is none
        await monitor.execute("blockdev-del", **{"node-name": _NODE})


async def _mirror(monitor: Monitor, disk: Path, tell: Tell) -> None:
    """Begin to mirror the first disk, and return when the copy is the same."""
    descriptor = os.open(disk, os.O_RDWR | os.O_CLOEXEC)
    try:
        path = await monitor.give(descriptor)
    finally:
        os.close(descriptor)
    below = {"driver": "file", "filename": path, "discard": "unmap"}
    await monitor.execute("blockdev-add", **command.disk_node(_NODE, below, read_only=False))
    errors = {"on-source-error": "report", "on-target-error": "report"}
    options = {"job-id": _JOB, "device": command.DISK_NAMES[0], "target": _NODE, "sync": "full", "auto-dismiss": False}
    await monitor.execute("blockdev-mirror", **options, **{"copy-mode": "write-blocking"}, **errors)
    while True:
        for job in await monitor.listed("query-block-jobs"):
            if job.get("device") == _JOB:
                if job.get("ready") is True:
                    return
                tell(int(job.get("offset") or 0), int(job.get("len") or 0))
        await _check(monitor)
        await asyncio.sleep(_POLL)


async def _end_mirror(monitor: Monitor) -> None:
    """Have the copy be complete; the machine goes on with its own disk."""
    await monitor.execute("block-job-cancel", device=_JOB)
    await _concluded(monitor)
    await _check(monitor)


async def _concluded(monitor: Monitor) -> None:
    while True:
        jobs = await monitor.listed("query-jobs")
        if all(job.get("status") == "concluded" for job in jobs if job.get("id") == _JOB):
            return
        await asyncio.sleep(_OFTEN)


async def _check(monitor: Monitor) -> None:
    """Raise the error that has ended the mirror, if one has."""
    for job in await monitor.listed("query-jobs"):
        if job.get("id") == _JOB and job.get("error"):
            if job["error"] == _NO_SPACE:
                raise StorageError(
                    "no space for the copy of the writable layer",
                    code="NO_SPACE",
                    hint="free some space, for example: shed delete NAME",
                )
            raise MonitorError(f"the disk could not be copied: {told(job['error'])}")


@contextlib.asynccontextmanager
async def _stopped(monitor: Monitor) -> AsyncIterator[None]:
    """Have the machine stand still meanwhile."""
    try:
        await monitor.execute("stop")
        yield
    finally:
        await to_the_end(_go_on(monitor))


async def _go_on(monitor: Monitor) -> None:
    while (await monitor.execute("query-migrate")).get("status") not in _OVER:
        await monitor.execute("migrate_cancel")  # more than once does no harm
        await asyncio.sleep(_OFTEN)
    await monitor.execute("cont")


async def _save(monitor: Monitor, memory: Path) -> None:
    await monitor.execute("migrate-set-parameters", **{"max-bandwidth": _UNBOUNDED})
    await monitor.execute("migrate-set-capabilities", capabilities=[saving.IGNORE_SHARED | {"state": False}])
    with memory.open("xb") as file:
        os.fchmod(file.fileno(), 0o600)
        await monitor.lend(_CHANNEL, file.fileno())
    await monitor.execute("migrate", uri=f"fd:{_CHANNEL}")
    await saving.migrated(monitor)


def _begin(source: Path, target: int) -> bool:
    """Make the file `target` as long as `source`, and try to clone it."""
    os.fchmod(target, 0o600)
    os.ftruncate(target, source.stat().st_size)
    return _clone(source, target)


def _clone(source: Path, target: int) -> bool:
    """Make the file `target` share all that `source` has; tell whether the file system can."""
    with source.open("rb") as file:
        try:
            fcntl.ioctl(target, FICLONE, file.fileno())
        except OSError:
            return False
    return True
