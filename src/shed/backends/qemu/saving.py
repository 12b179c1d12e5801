"""Saving a machine and going on from it, through QEMU's migration.

The memory is a file that all sides have (capability ``x-ignore-shared``), so what goes through the migration's stream
is half a megabyte of devices and firmware.  QEMU gets the stream's file from us: its sandbox lets it start no program,
and its versions differ in what else they read from.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shed.backends.base import Disk
from shed.backends.qemu import command
from shed.backends.qemu.monitor import Monitor, MonitorError, connected
from shed.threads import in_thread
from shed.untrusted import told

__all__ = ["MonitorError", "exchange", "migrated", "pause", "resize", "resume", "save"]
_POLL = 0.002
_ANOTHER_SIZE = 2 << 20
"""Bytes; not what placeholders have."""
_CHANNEL = "state"
IGNORE_SHARED: dict[str, object] = {"capability": "x-ignore-shared", "state": True}
"""What has all sides keep the memory where it is."""


async def save(state_dir: Path, state: Path, disks: Sequence[str]) -> None:
    """Save the running machine of `state_dir` to the new file `state`; it does not run afterwards.

    Raises `MonitorError`.

    It is saved with the interrupt pending that says that `disks`, by their names, have another size: who goes on from
    it looks at once.
    """
    async with connected(state_dir) as monitor:
        await monitor.execute("stop")
        for disk in disks:
            await monitor.execute("block_resize", **{"node-name": disk, "size": _ANOTHER_SIZE})
        await _ignore_memory(monitor)
        with state.open("xb") as file:
            await monitor.lend(_CHANNEL, file.fileno())
        await monitor.execute("migrate", uri=f"fd:{_CHANNEL}")
        await migrated(monitor)


async def resize(state_dir: Path, disk: str, size: int) -> None:
    """Tell the machine that its `disk` has `size` bytes now.  Raises `MonitorError`."""
    async with connected(state_dir) as monitor:
        await monitor.execute("block_resize", **{"node-name": disk, "size": size})


async def resume(
    state_dir: Path, state: Path | None, *, whole: bool = True, begins: Callable[[], None] | None = None
) -> None:
    """Wait until the machine of `state_dir` is set up, and have it go on from `state`, if given.

    `begins` is called when it has its state, and does not run yet.

    Unless it is the `whole` of what QEMU saves without memory, the memory was taken out of it.

    Raises `MonitorError` and `OSError`.

    A QEMU that cannot read the state ends.
    """
    async with connected(state_dir) as monitor:
        if state is not None:
            if whole:
                await _ignore_memory(monitor)
            with state.open("rb") as file:
                await monitor.lend(_CHANNEL, file.fileno())
            await monitor.execute("migrate-incoming", uri=f"fd:{_CHANNEL}")
            await migrated(monitor)
            if begins is not None:
                await in_thread(begins)
            await monitor.execute("cont")


async def waits_for_room(state_dir: Path, *, go_on: bool) -> bool:
    """Tell whether the machine of `state_dir` stands still at a write that found the disk full.

    With `go_on`, it is tried again.

    Raises `MonitorError` and `OSError`.
    """
    async with connected(state_dir) as monitor:
        waits = bool((await monitor.execute("query-status"))["status"] == "io-error")
        if waits and go_on:
            await monitor.execute("cont")
        return waits and not go_on


async def pause(state_dir: Path) -> None:
    """Have the machine of `state_dir` stand still.  Raises `MonitorError`."""
    async with connected(state_dir) as monitor:
        await monitor.execute("stop")


async def exchange(state_dir: Path, disks: Mapping[str, Disk], scratch: Path) -> None:
    """Put other `disks`, by their names, into the machine of `state_dir`, which stands still, and have it go on.

    Its kernel is told, by the interrupt that says that a disk has another size.  A disk that cannot be written cannot
    be resized either: for a moment it is the file `scratch`, which gets its size.  Raises `MonitorError`, and `OSError`
    when a disk is not there.
    """
    async with connected(state_dir) as monitor:
        for name, disk in disks.items():
            size = disk.path.stat().st_size
            below = disk.path if not disk.read_only else scratch
            await _reopen(monitor, name, f"{name}-written", below, read_only=False)
            await monitor.execute("block_resize", **{"node-name": name, "size": size})
            if disk.read_only:
                await _reopen(monitor, name, f"{name}-file", disk.path, read_only=True)
                await monitor.execute("blockdev-del", **{"node-name": f"{name}-written"})
        await monitor.execute("cont")


async def _reopen(monitor: Monitor, name: str, node: str, file: Path, *, read_only: bool) -> None:
    """Put `node`, which is `file`, below the disk `name`.

    QEMU gets it opened.  A node that is added has to be told to pass on what the guest discards; one within another is.
    """
    descriptor = os.open(file, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
    try:
        path = await monitor.give(descriptor)
    finally:
        os.close(descriptor)
    options = {"node-name": node, "driver": "file", "filename": path, "read-only": read_only, "discard": "unmap"}
    await monitor.execute("blockdev-add", **options)
    await monitor.execute("blockdev-reopen", options=[command.disk_node(name, node, read_only=read_only)])


async def migrated(monitor: Monitor) -> None:
    """Wait until the machine is saved, or has what was saved.  Raises `MonitorError` when that fails."""
    while (answer := await monitor.execute("query-migrate")).get("status") != "completed":
        if answer.get("status") in {"failed", "cancelled"}:
            raise MonitorError(f"QEMU says: {told(answer.get('error-desc', 'it failed'))}")
        await asyncio.sleep(_POLL)


async def _ignore_memory(monitor: Monitor) -> None:
    await monitor.execute("migrate-set-capabilities", capabilities=[IGNORE_SHARED])
