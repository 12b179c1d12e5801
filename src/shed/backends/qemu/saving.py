"""Saving a machine and going on from it, through QEMU's migration.

The memory is a file that all sides have (capability ``x-ignore-shared``), so what goes through the migration's stream is half a megabyte of
devices and firmware.  QEMU gets the stream's file from us: its sandbox lets it start no program, and its versions differ in what else
they read from.  A machine that ran while it was saved runs as soon as it is restored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from shed.backends.qemu.monitor import Monitor, MonitorError, connected

__all__ = ["MonitorError", "resume", "save"]
_POLL = 0.002
_ANOTHER_SIZE = 2 << 20
"""Bytes; not what placeholders have."""
_CHANNEL = "state"


async def save(state_dir: Path, state: Path, disks: Sequence[str]) -> None:
    """Save the running machine of `state_dir` to the new file `state`; it does not run afterwards.  Raises `MonitorError`.

    It is saved with the interrupt pending that says that `disks`, by their names, have another size: who goes on from it looks at once.
    """
    async with connected(state_dir) as monitor:
        await monitor.execute("stop")
        for disk in disks:
            await monitor.execute("block_resize", **{"node-name": disk, "size": _ANOTHER_SIZE})
        await _ignore_memory(monitor)
        with state.open("xb") as file:
            await monitor.lend(_CHANNEL, file.fileno())
        await monitor.execute("migrate", uri=f"fd:{_CHANNEL}")
        await _migrated(monitor)


async def resume(state_dir: Path, state: Path | None) -> None:
    """Wait until the machine of `state_dir` is set up, and have it go on from `state`, if given.  Raises `MonitorError` and `OSError`.

    A QEMU that cannot read the state ends.
    """
    async with connected(state_dir) as monitor:
        if state is not None:
            await _ignore_memory(monitor)
            with state.open("rb") as file:
                await monitor.lend(_CHANNEL, file.fileno())
            await monitor.execute("migrate-incoming", uri=f"fd:{_CHANNEL}")
            await _migrated(monitor)
            await monitor.execute("cont")


async def _migrated(monitor: Monitor) -> None:
    while (answer := await monitor.execute("query-migrate")).get("status") != "completed":
        if answer.get("status") in {"failed", "cancelled"}:
            raise MonitorError(f"QEMU says: {answer.get('error-desc', 'it failed')}")
        await asyncio.sleep(_POLL)


async def _ignore_memory(monitor: Monitor) -> None:
    await monitor.execute("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])
