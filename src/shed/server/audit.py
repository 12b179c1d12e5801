"""The audit log: who did what, to which shed, and how it ended.

``DATA/logs/audit.log``, mode 0600, one JSON object per line, in UTC:

    {"time": "2026-11-29T19:30:00.120Z", "who": {"kind": "user", "name": "ann", "uid": 1000, "pid": 4711},
     "action": "POST /api/sheds", "shed": "dev", "status": 201, "seconds": 0.412}

`who` has a ``client``, too, where the program that asked said what it is, such as ``mcp``.  `action` is the method and
the path of the API's route, or what was done by SSH; `code` is there when it failed, and is the error's.  What
strangers try is written too, but only so much of it that it cannot push out what callers did.
Commands and their words are not written: they may hold secrets.
"""

from __future__ import annotations

import asyncio
import json
import logging
import logging.handlers
import os
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from shed.errors import ShedError
from shed.server.caller import Caller

log = logging.getLogger(__name__)
FILE_SIZE = 8 * 1024 * 1024
"""Bytes after which another file is begun."""
FILES = 4
"""Older files that are kept: ``audit.log.1`` is the newest of them."""
STRANGERS, KNOWN = 20, 600
"""Most records per minute: of all callers that nobody knows, and of each token and key; the others are counted.  So
nobody pushes out what others did, but for the user of the server, who could remove the file.
"""
_LONGEST = 200
"""Characters of a word that a stranger chose."""


class Audit:
    """The audit log in the folder `logs`.

    A record that cannot be written is told in the server's log, and what it is about goes on.
    """

    def __init__(self, logs: Path) -> None:
        self._handler = _PrivateFile(logs / "audit.log")
        self._minute = 0
        self._written: Counter[str] = Counter()
        """How many of this minute, by caller."""

    def begin(self, who: Caller, action: str, shed: str | None = None) -> Action:
        """Return an action that begins now; its end is what is recorded."""
        return Action(self, who, action, shed)

    def record(self, who: dict[str, object], action: str, **details: object) -> None:
        """Write one record; details that are None are left out."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        known = {key: value for key, value in details.items() if value is not None}
        line = json.dumps({"time": now, "who": who, "action": action, **known}, separators=(",", ":"))
        self._handler.handle(logging.LogRecord("audit", logging.INFO, "", 0, line, None, None))

    def of_caller(self, who: Caller, action: str, **details: object) -> None:
        """Record what a caller did; of a token and a key only so much in a minute."""
        if who.local or self._room(f"{who.kind} {who.name}", KNOWN):
            self.record(who.to_json(), action, **details)

    def stranger(self, kind: str, action: str, error: ShedError, *, peer: str | None = None) -> None:
        """Record what somebody tried whom nobody knows: ``kind`` is ``tcp`` or ``ssh``."""
        if self._room("strangers", STRANGERS):
            self.record({"kind": "stranger", "by": kind, "peer": peer}, action[:_LONGEST], code=error.code)

    def _room(self, whose: str, most: int) -> bool:
        """Count a record of this minute; tell how many of the last one were left out when another begins."""
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            for name, count in self._written.items():
                limit = STRANGERS if name == "strangers" else KNOWN
                if count > limit:
                    self.record({"kind": "audit"}, "left out", of=name, count=count - limit)
            self._minute = minute
            self._written.clear()
        self._written[whose] += 1
        return self._written[whose] <= most

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


class Action:
    """One action under way."""

    def __init__(self, audit: Audit, who: Caller, action: str, shed: str | None) -> None:
        self.shed = shed
        """The shed that it is about."""
        self._audit = audit
        self._who = who
        self._action = action
        self._began = time.monotonic()
        self._open = True

    def end(self, status: int, code: str | None = None) -> None:
        """Record that it ended with an HTTP `status`, and the `code` of an error; only the first end counts."""
        if not self._open:
            return
        self._open = False
        seconds = round(time.monotonic() - self._began, 3)
        self._audit.of_caller(self._who, self._action, shed=self.shed, status=status, code=code, seconds=seconds)

    def follow(self, task: asyncio.Task[Any], status: int) -> None:
        """Record the end of `task`, whenever that is, rather than that of the request.

        It ends with `status` when it succeeds.
        """
        self._open = False

        def ended(task: asyncio.Task[Any]) -> None:
            self._open = True
            error = None if task.cancelled() else task.exception()
            if task.cancelled():
                self.end(503, "SERVER_STOPPING")
            elif error is None:
                self.end(status)
            elif isinstance(error, ShedError):
                self.end(error.http_status, error.code)
            else:
                self.end(500, ShedError.code)

        task.add_done_callback(ended)


class _PrivateFile(logging.handlers.RotatingFileHandler):
    """A file for its owner's eyes alone, with a few older ones."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=FILE_SIZE, backupCount=FILES, encoding="utf-8", delay=True)
        self._told = False

    def _open(self) -> TextIOWrapper:
        return open(
            self.baseFilename, self.mode, encoding=self.encoding, opener=lambda path, flags: os.open(path, flags, 0o600)
        )  # type: ignore[return-value]

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        """Say once that the log cannot be written."""
        if not self._told:
            self._told = True
            log.error("the audit log %s cannot be written: %s", self.baseFilename, sys.exception())
