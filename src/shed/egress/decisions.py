"""The log of what was decided: ``LOGS/egress.log``, one JSON object per line, mode 0600, and older files beside it.

The relay's process writes it; two may, while one takes over from the other.  What one shed can have written in a minute
is bounded, and what cannot be written because the disk is full is counted: an entry with ``left_out`` says how many are
missing.  The server reads it from its end, and only as far as it must.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
FILE_SIZE, FILES = 16 << 20, 4
"""Bytes after which another file is begun, and older ones that are kept."""
MOST_ENTRIES = 1200
"""Entries of one shed in a minute: no shed pushes out what the log has of another."""
_BLOCK = 1 << 18
_MINUTE = 60.0
Entry = dict[str, Any]


class Decisions:
    """The log at `path`, for writing.  Nothing here raises: a log that cannot be written ends no connection."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._torn = False
        """Whether the last line has no end, because the disk was full."""
        self._minute = 0.0
        self._counts: Counter[str] = Counter()
        """Entries of this minute by shed, those that were left out included."""
        self._missing: Counter[str] = Counter()
        """What the log does not say yet that it is missing, by shed."""
        self.written: Counter[str] = Counter()
        """Bytes by shed, since this process began."""
        self.left_out: Counter[str] = Counter()
        """Entries that are not in the log, by shed, since this process began."""
        self._told = False

    def add(self, entry: Entry) -> Entry:
        """Write an entry, as far as there is room for more of its shed; return it with the time."""
        entry, shed = {"time": now(), **entry}, str(entry["shed"])
        self.turn()
        self._counts[shed] += 1
        if self._counts[shed] > MOST_ENTRIES or not self._write(shed, entry):
            self._missing[shed] += 1
            self.left_out[shed] += 1
        return entry

    def turn(self) -> list[Entry]:
        """Say in the log, once in a minute, how many entries are missing; return what was written."""
        clock = time.monotonic()
        if clock < self._minute + _MINUTE:
            return []
        self._minute = clock
        self._counts.clear()
        told = []
        for shed, count in list(self._missing.items()):
            entry = {"time": now(), "shed": shed, "left_out": count}
            if self._write(shed, entry):
                del self._missing[shed]
                told.append(entry)
        return told

    def close(self) -> None:
        """Write no more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, shed: str, entry: Entry) -> bool:
        line = b"\n" * self._torn + json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        try:
            self._open(len(line))
            count = os.write(self._descriptor, line)
        except OSError as error:
            if not self._told:
                self._told = True
                log.error("the log %s cannot be written: %s", self._path, error.strerror)
            return False
        self._torn = count < len(line)
        if self._torn:
            return False
        self._told = False
        self.written[shed] += count
        return True

    def _open(self, size: int) -> None:
        """Have the file that `_path` names now open, with room for `size` bytes.  Raises `OSError`."""
        if self._descriptor >= 0:
            ours = os.fstat(self._descriptor)
            with contextlib.suppress(FileNotFoundError):
                there = self._path.stat()
                if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
                    if there.st_size + size <= FILE_SIZE:
                        return
                    self._rotate()
            self.close()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o600)

    def _rotate(self) -> None:
        for number in range(FILES, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                _older(self._path, number - 1).replace(_older(self._path, number))


def last(path: Path, shed: str, most: int) -> list[Entry]:
    """Return the last `most` entries of the log at `path` about `shed`, the oldest first.  Raises `OSError`."""
    found: list[Entry] = []
    seen = set()
    mark = json.dumps(shed).encode()
    for number in range(FILES + 1) if most else ():
        with contextlib.suppress(FileNotFoundError), _older(path, number).open("rb") as file:
            about = os.fstat(file.fileno())
            if (about.st_dev, about.st_ino) in seen:  # it was renamed between two of our looks
                continue
            seen.add((about.st_dev, about.st_ino))
            for line in _backwards(file.fileno(), about.st_size):
                if mark in line and (entry := _entry(line)) is not None and entry.get("shed") == shed:
                    found.append(entry)
                    if len(found) == most:
                        return found[::-1]
    return found[::-1]


def size(path: Path) -> int:
    """Return the bytes of the log at `path`, its older files included.  Raises `OSError`."""
    total = 0
    for number in range(FILES + 1):
        with contextlib.suppress(FileNotFoundError):
            total += _older(path, number).stat().st_size
    return total


def _backwards(file: int, size: int) -> Iterator[bytes]:
    """Yield the lines of a file, the last one first."""
    rest = b""
    while size > 0:
        start = max(0, size - _BLOCK)
        first, *lines = (os.pread(file, size - start, start) + rest).split(b"\n")
        yield from reversed(lines)
        rest, size = first, start
    yield rest


def _entry(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _older(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path


def now() -> str:
    """Return the time, as the log has it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
