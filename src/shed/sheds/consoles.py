"""Cutting the console logs of sheds: a VM appends to its own as long as it runs, and nothing else bounds them.

A log is cut in place, because the VM holds the file open; it appends (``O_APPEND``), so it goes on at the new end and leaves no hole.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from shed.config.paths import Paths
from shed.fsutil import storage_errors
from shed.sheds import folders

DEFAULT_TAIL = 5 << 20
"""Bytes of a log that are kept."""
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class LongConsole:
    """A console log of a shed that is longer than what is kept of it."""

    path: Path
    excess: int
    """Bytes at its beginning that are not kept."""


def long_consoles(paths: Paths, tail: int, *, without: Collection[str] = ()) -> list[LongConsole]:
    """Return the logs, of this start and of the one before, that have more than `tail` bytes; sheds `without` are passed over."""
    found = []
    for name in folders.names(paths):
        for path in sorted((paths.instances / name).glob("console*.log")) if name not in without else ():
            try:
                excess = path.stat().st_size - tail
            except FileNotFoundError:  # deleted, or begun anew
                continue
            if excess > 0:
                found.append(LongConsole(path, excess))
    return found


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
