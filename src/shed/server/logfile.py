"""The server's log: lines on standard error that nobody can forge, in a number and a size that nobody can raise.

A server that a command line started has standard output and error on the file ``logs/server.log`` of its data, so that
a crash ends up there, too.  When it has grown, it becomes ``server.log.1``, that one ``server.log.2``, and so on, and
both descriptors are put on a new file.  As a service of systemd the server writes to the journal, which has bounds of
its own; then no file is touched.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shed.text import visible, visible_lines

MOST_BYTES = 8 << 20
"""Bytes of the file from which on it is put aside; a line more can be in it."""
OLDER = 3
"""Files that are kept beside it."""
LONGEST = 8 * 1024
"""Characters of an entry, and of its traceback: the beginning and the end."""
SECONDS = 60.0
SAME, ALIKE = 5, 300
"""Entries within so many seconds: of the same words, and from the same place in the program.  The rest is counted."""
_NAME = "server.log"
_STDOUT, _STDERR = 1, 2
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def begin(level: str, logs: Path) -> LogHandler:
    """Log to standard error from `level` on.

    If standard error is ``server.log`` in the directory `logs`, it is kept small.
    """
    handler = LogHandler(LogFile(logs / _NAME))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    return handler


class OneLine(logging.Formatter):
    """A line for each record, whatever is in it; only the lines of a traceback follow, each of them indented.

    Neither is too long.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        """Return the record's line."""
        return visible(_cut(super().formatMessage(record)))

    def formatException(self, ei: Any) -> str:  # noqa: N802  as above
        """Return a traceback's lines."""
        return "\n".join(f"  {line}" for line in visible_lines(_cut(super().formatException(ei))).split("\n"))


class Repeats:
    """Counts the entries that come too often, by their words and by where in the program they come from."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._seen: dict[tuple[object, ...], int] = {}
        self._left_out: dict[tuple[object, ...], tuple[int, logging.LogRecord]] = {}

    def passes(self, record: logging.LogRecord) -> bool:
        """Tell whether an entry is to be written; if not, it is counted."""
        place = (record.name, record.levelno, record.msg if isinstance(record.msg, str) else type(record.msg))
        words = (*place, record.getMessage()[:LONGEST])
        for key, most in ((place, ALIKE), (words, SAME)):
            if self._seen.get(key, 0) >= most:
                left_out, _ = self._left_out.get(key, (0, record))
                self._left_out[key] = (left_out + 1, record)
                return False
        for key in (place, words):
            self._seen[key] = self._seen.get(key, 0) + 1
        return True

    def due(self, *, now: bool = False) -> list[logging.LogRecord]:
        """Return an entry for each kind of those that were left out, once the time is over, or `now`.

        Then all may come again.
        """
        if not now and self._clock() < self._since + SECONDS:
            return []
        counted = list(self._left_out.values())
        self._since = self._clock()
        self._seen.clear()
        self._left_out.clear()
        return [_repeated(count, record) for count, record in counted]


class LogFile:
    """The file `path`, if standard error is that."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ours = self._is_open()
        if self._ours:
            with contextlib.suppress(OSError):
                os.fchmod(_STDERR, 0o600)  # one of an earlier version is not

    def keep_small(self) -> None:
        """Put it aside when it is too large, and have standard output and error go to a new one.

        What fails is tried again.
        """
        if not self._ours or os.fstat(_STDERR).st_size < MOST_BYTES:
            return
        with contextlib.suppress(OSError):
            if self._is_open():  # else somebody else has put it aside
                for number in range(OLDER, 0, -1):
                    with contextlib.suppress(FileNotFoundError):
                        self._older(number - 1).rename(self._older(number))
            new = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                for target in (_STDOUT, _STDERR) if os.path.sameopenfile(_STDOUT, _STDERR) else (_STDERR,):
                    os.dup2(new, target)
            finally:
                os.close(new)

    def _older(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path

    def _is_open(self) -> bool:
        try:
            found = os.fstat(_STDERR)
            return stat.S_ISREG(found.st_mode) and os.path.samestat(found, self._path.stat())
        except OSError:
            return False


class LogHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes entries to standard error."""

    def __init__(self, file: LogFile, repeats: Repeats | None = None) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(OneLine(_FORMAT))
        self._file = file
        self._repeats = repeats or Repeats()
        self._timer: threading.Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write an entry, unless there were too many of its kind; then say so when it is time."""
        self._file.keep_small()
        self._tell(now=False)
        if self._repeats.passes(record):
            super().emit(record)
        elif self._timer is None:
            self._timer = threading.Timer(SECONDS, self._late)
            self._timer.daemon = True
            self._timer.start()

    def close(self) -> None:
        """Say what was left out to the end."""
        with self.lock or contextlib.nullcontext():
            self._tell(now=True)
        super().close()

    def _late(self) -> None:
        with self.lock or contextlib.nullcontext():
            self._timer = None
            self._tell(now=True)

    def _tell(self, *, now: bool) -> None:
        for record in self._repeats.due(now=now):
            super().emit(record)


def _repeated(count: int, record: logging.LogRecord) -> logging.LogRecord:
    text = record.getMessage()
    shown = text if len(text) <= 200 else f"{text[:200]}…"
    return logging.LogRecord(
        record.name,
        record.levelno,
        record.pathname,
        record.lineno,
        "… repeated %s times, last: %s",
        (f"{count:,}", shown),
        None,
    )


def _cut(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]} … {len(text) - 2 * half} characters … {text[-half:]}"
