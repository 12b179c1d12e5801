"""The local server: starting it when it is not running, and knowing that it stopped."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from shed.config.paths import Paths
from shed.errors import ShedError, UnavailableError
from shed.fsutil import locked, private_folder

START_TIMEOUT = 30.0
"""Seconds a new server has until it answers."""
STOP_TIMEOUT = 30.0
_PATIENCE = 1.0
_POLL = 0.02
_LOG_LINES = 15
_LOG_TAIL = 16 * 1024


def start_server(
    is_running: Callable[[], bool], *, timeout: float = START_TIMEOUT, on_wait: Callable[[], None] | None = None
) -> bool:
    """Start the local server, detached, and return when `is_running` says so; False when it did already.

    Any number of processes may call this at once: they queue for a lock, and the first one starts the server.
    `on_wait` is called once when that takes more than a second.
    Raises `UnavailableError` (SERVER_START_FAILED) with the last lines of the server's log.
    """
    paths = Paths()
    for folder in (paths.run, paths.data, paths.logs):
        private_folder(folder)
    with locked(paths.run / "start.lock"):
        if is_running():
            return False
        log = paths.logs / "server.log"
        with open(log, "ab", opener=_private) as output:
            start = output.tell()
            server = _spawn(output.fileno())
        begun = time.monotonic()
        deadline, tell = begun + timeout, begun + _PATIENCE
        while not is_running():
            ended = server.poll()
            if ended is not None:
                raise _failed(f"the local server ended with exit code {ended} as it started", log, start)
            if time.monotonic() > deadline:
                server.kill()
                server.wait()
                raise _failed(f"the local server did not answer within {timeout:g} s", log, start)
            if time.monotonic() > tell:
                tell = deadline
                if on_wait is not None:
                    on_wait()
            time.sleep(_POLL)
        server.returncode = 0  # it lives on; its Popen object must not mind
    return True


def wait_stopped(is_running: Callable[[], bool], pid: int | None = None, *, timeout: float = STOP_TIMEOUT) -> None:
    """Return when the server does not run any more as `is_running` says, and process `pid`, if given, is gone.

    Raises `UnavailableError`.

    A server stops listening first and undoes what it was doing then: only its end frees the data folder for the next
    one.
    """
    deadline = time.monotonic() + timeout
    while is_running() or (pid is not None and _lives(pid)):
        if time.monotonic() > deadline:
            raise UnavailableError(f"the server still runs after {timeout:g} s", hint="see its log")
        time.sleep(_POLL)


def _lives(pid: int) -> bool:
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())  # a zombie has no words left
    except OSError:
        return False


def _spawn(log: int) -> subprocess.Popen[bytes]:
    """Start ``shed-server serve`` in a session of its own, so that no ctrl-C or closing terminal reaches it."""
    return subprocess.Popen(
        [sys.executable, "-m", "shed.server.main", "serve"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd="/",
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _failed(message: str, log: Path, start: int) -> ShedError:
    lines = "".join(f"\n  {line}" for line in _tail(log, start))
    text = f"{message}:{lines}" if lines else message
    return UnavailableError(text, code="SERVER_START_FAILED", hint=f"its whole log is {log}")


def _tail(log: Path, start: int) -> Iterator[str]:
    """Yield the last lines that were written to `log` after the offset `start`."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(start if start <= size else 0, size - _LOG_TAIL))  # it may be a new file since
        yield from file.read().decode(errors="replace").splitlines()[-_LOG_LINES:]
