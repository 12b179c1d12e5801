"""A full disk of the host: a VM stands still at a write that has no room, and goes on when there is some.

So a full disk breaks no file system of a guest: it sees a slow disk.  VMMs tell nobody of it, so those that run are
asked: now and then, and more often while space is short or one of them stands still.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

from shed.backends.base import Liveness
from shed.backends.interface import Backend, FullDisk
from shed.config.paths import Paths
from shed.errors import ShedError
from shed.sheds.folders import Folders, names
from shed.threads import in_thread

log = logging.getLogger(__name__)
_LITTLE = 1 << 30
"""Free bytes below which a disk may be full at the next look."""
_ENOUGH = 64 << 20
"""Free bytes with which a VM goes on; it may stop again a moment later."""
_OFTEN, _SELDOM = 2.0, 30.0
"""Seconds between two looks."""


class Room:
    """Has the VMs of the sheds below `paths` go on that wait for room on their disk."""

    def __init__(self, paths: Paths, backend: Backend) -> None:
        self._paths = paths
        self._backend = backend
        self._waiting: set[str] = set()

    def waits(self, name: str) -> bool:
        """Tell whether the VM of the shed `name` stood still for want of room when it was last looked at."""
        return name in self._waiting

    async def keep(self) -> None:
        """Look after all VMs; returns only when the backend pauses none."""
        full_disk = self._backend.capabilities.full_disk
        while full_disk is not None:
            short = self._free() < _LITTLE
            found = await in_thread(self._running)
            self._waiting &= found.keys()
            for name, folder in found.items():
                await self._look(full_disk, name, folder)
            await asyncio.sleep(_OFTEN if short or self._waiting else _SELDOM)

    def _running(self) -> dict[str, Path]:
        """Return the instance folders of the VMs that run, by their sheds' names."""
        found = {name: Folders(self._paths, name).instance for name in names(self._paths)}
        return {name: folder for name, folder in found.items() if self._backend.liveness(folder) is Liveness.OURS}

    async def _look(self, full_disk: FullDisk, name: str, folder: Path) -> None:
        try:
            waits = await full_disk.is_paused(folder, resume=self._free() >= _ENOUGH)
        except ShedError as error:
            log.debug("shed %s: %s", name, error)  # it has ended, or is being started
            return
        if waits and name not in self._waiting:
            self._waiting.add(name)
            log.warning(
                "shed %s stands still: the disk with %s is full; it goes on when there is room",
                name,
                self._paths.uppers,
            )
        elif not waits and name in self._waiting:
            self._waiting.remove(name)
            log.info("shed %s goes on", name)

    def _free(self) -> int:
        try:
            disk = os.statvfs(self._paths.uppers)
        except OSError:
            return 0
        return disk.f_bavail * disk.f_frsize
