"""The values of secrets, fetched from where they come from when they are needed."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from shed.egress.secrets.secret import LONGEST_VALUE, check_value
from shed.egress.secrets.secretstore import Source, StoredSecret
from shed.errors import ShedError, UnavailableError

LIFE = 300.0
"""Seconds that what a command printed is used for."""
LIFE_OF_FAILURE = 10.0
"""Seconds after which a command that failed is run again."""
TIME = 30.0
"""Seconds that a command may take."""
_MOST = LONGEST_VALUE + 2
"""Bytes that are read: a value and the end of its line."""


class Values:
    """Fetches values; several threads may use it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._printed: dict[str, tuple[Source, str | UnavailableError, float]] = {}
        """What commands printed, or how they failed, by secret, and until when that is used."""
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        """Held while the command of a secret runs."""

    def of(self, secret: StoredSecret) -> str:
        """Return the value of a secret.  A command may take `TIME` seconds, once in `LIFE`.

        Raises `UnavailableError` (SECRET_UNAVAILABLE), which never has a part of it.
        """
        try:
            value = self._fetch(secret)
            check_value(secret.name, value)
        except UnavailableError:
            raise
        except ShedError as error:  # it says what is wrong with the value
            raise _unavailable(secret, str(error)) from None
        return value

    def _fetch(self, secret: StoredSecret) -> str:
        source = secret.source
        if source.kind == "value":
            return source.text
        if source.kind == "from_env":
            if (value := os.environ.get(source.text)) is None:
                raise _unavailable(secret, f"the server has no environment variable {source.text}")
            return value
        if source.kind == "from_file":
            return _line(_read(secret, Path(source.text)))
        with self._locks[secret.name]:
            known, printed, until = self._printed.get(secret.name, (None, "", 0.0))
            if known != source or self._clock() > until:
                try:
                    printed, life = _line(_run(secret, source.text)), LIFE
                except UnavailableError as error:
                    printed, life = error, LIFE_OF_FAILURE
                self._printed[secret.name] = (source, printed, self._clock() + life)
        if isinstance(printed, UnavailableError):
            raise printed
        return printed


def _line(data: bytes) -> str:
    """Return a line without its end; what is no text is no value, and is told by `check_value`."""
    return data.decode("ascii", errors="replace").removesuffix("\n").removesuffix("\r")


def _read(secret: StoredSecret, path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would wait for a writer
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _unavailable(secret, f"{path} is not a file")
            return file.read(_MOST)
    except OSError as error:
        raise _unavailable(secret, f"cannot read {path}: {error.strerror}") from None


def _run(secret: StoredSecret, command: str) -> bytes:
    """Run a command as the server's user, with its environment; what it says on standard error is thrown away."""
    with subprocess.Popen(
        ["/bin/sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        process_group=0,
    ) as process:
        assert process.stdout is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            _kill(process.pid)

        timer = threading.Timer(TIME, end)
        timer.start()
        try:
            data = process.stdout.read(_MOST)
            if len(data) == _MOST:
                _kill(process.pid)
            code = process.wait()
        finally:
            timer.cancel()
    if late.is_set():
        raise _unavailable(secret, f"its command did not end within {TIME:g} s")
    if len(data) == _MOST:
        raise _unavailable(secret, f"its command printed more than {LONGEST_VALUE} characters")
    if code:
        raise _unavailable(secret, f"its command failed with exit code {code}")
    return data


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _unavailable(secret: StoredSecret, why: str) -> UnavailableError:
    prefix = f"secret {secret.name}: "
    return UnavailableError(
        f"the value of secret {secret.name} cannot be had: {why.removeprefix(prefix)}",
        code="SECRET_UNAVAILABLE",
        hint=f"set it again, or mend where it comes from: shed secret set {secret.name}",
    )
