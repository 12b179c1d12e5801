"""Cutting the console logs of sheds, in place.

Writers append (``O_APPEND``), and go on at the new end.

A VM's keeper bounds its log; see `shed.backends.qemu.launcher`.  VMs that were started by a shed of before have none:
QEMU itself appends to the file, and the server cuts it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from shed.config.paths import Paths
from shed.errors import ShedError
from shed.fsutil import storage_errors
from shed.sheds import folders
from shed.threads import in_thread

log = logging.getLogger(__name__)
DEFAULT_TAIL = 5 << 20
"""Bytes of a log that are kept."""
_CHUNK = 1 << 20
_MOST = 16 << 20
"""Bytes of a log that nobody keeps short; a keeper's has half as many."""
_LOOK = 60.0
"""Seconds between two looks at the logs."""


@dataclass(frozen=True, slots=True)
class LongConsole:
    """A console log of a shed that is longer than what is kept of it."""

    path: Path
    excess: int
    """Bytes at its beginning that are not kept."""


def long_consoles(
    paths: Paths, tail: int, *, without: Collection[str] = (), pattern: str = "console*.log"
) -> list[LongConsole]:
    """Return the logs, of this start and of the one before, that have more than `tail` bytes.

    Sheds `without` are passed over.
    """
    found = []
    for name in folders.names(paths):
        for path in sorted((paths.instances / name).glob(pattern)) if name not in without else ():
            try:
                excess = path.stat().st_size - tail
            except FileNotFoundError:  # deleted, or begun anew
                continue
            if excess > 0:
                found.append(LongConsole(path, excess))
    return found


async def keep_short(paths: Paths) -> None:
    """Cut the logs that have no keeper, now and then: those of VMs that an earlier shed started; never returns."""
    while True:
        try:
            for console in await in_thread(partial(long_consoles, paths, _MOST, pattern="*.log")):
                await in_thread(cut_console, console.path, DEFAULT_TAIL)
        except ShedError as error:
            log.warning("a console log stays long: %s", error)
        await asyncio.sleep(_LOOK)


def cut_console(path: Path, tail: int) -> int:
    """Keep the last `tail` bytes of a log and return how many went; what is not there has none.  Raises `StorageError`.

    What the VM prints meanwhile is kept, too, except between the last two system calls.
    """
    try:
        with storage_errors(path), path.open("r+b", buffering=0) as file:
            excess = max(0, os.fstat(file.fileno()).st_size - tail)
            position = 0
            while excess and (data := os.pread(file.fileno(), _CHUNK, excess + position)):
                position += os.pwrite(file.fileno(), data, position)
            if excess:
                file.truncate(position)
            return excess
    except FileNotFoundError:
        return 0
