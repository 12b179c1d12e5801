"""Following a shed's console log: its end, then what comes, over restarts, until the shed is deleted.

The log is a plain file that the VMM appends to.  A start puts a new file in its place; a prune may cut the file's
beginning off.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import BinaryIO

_POLL = 0.25
"""Seconds between two looks at the file: one read each, and a stat."""
_READ = 65536
_REMEMBERED = 256
"""Bytes of the log by which the place in it is found again after its beginning was cut off."""


def last_lines(text: bytes, count: int | None) -> bytes:
    """Return the last `count` lines of `text`, all of it for None; a line that has not ended yet counts."""
    if count is None:
        return text
    lines = text.splitlines(keepends=True)
    return b"".join(lines[max(0, len(lines) - count) :])


class ConsoleStream:
    """The log at `path` as an endless `Stream`: `shown`, and then what comes behind the file's byte `position`.

    Nothing is taken from the client, whose end is the end.
    """

    def __init__(self, path: Path, shown: bytes, position: int) -> None:
        self._path = path
        self._pending = shown
        self._last = shown[-_REMEMBERED:]
        self._file = _open(path)
        if self._file is not None:
            self._file.seek(position)

    async def read(self, limit: int = _READ) -> bytes:
        """Return what comes next, waiting for it; empty when the shed is no more."""
        while not self._pending:
            self._pending = self._more()
            if not self._pending:
                if not self._path.parent.exists():
                    return b""
                await asyncio.sleep(_POLL)
        data, self._pending = self._pending[:limit], self._pending[limit:]
        return data

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take nothing."""

    async def write_eof(self) -> None:
        """Take no end either."""

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def _more(self) -> bytes:
        if self._file is None:
            self._file = _open(self._path)
            if self._file is None:
                return b""
        data = self._file.read(_READ)
        if data:
            self._last = (self._last + data)[-_REMEMBERED:]
            return data
        ours = os.fstat(self._file.fileno())
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return b""
        if (now.st_dev, now.st_ino) != (ours.st_dev, ours.st_ino):
            self._file.close()
            self._file, self._last = None, b""
            return self._more()
        if now.st_size < self._file.tell():
            self._file.seek(0)
            self._file.seek(_end_of(self._last, self._file.read()))
            return self._file.read(_READ)
        return b""


def _end_of(last: bytes, content: bytes) -> int:
    """Return where in `content` the bytes `last` end, or as many of them as are left at its start; 0 for none."""
    found = content.rfind(last)
    if found >= 0:
        return found + len(last)
    return next((size for size in range(len(last), 0, -1) if content.startswith(last[-size:])), 0)


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        return None
