"""Tunnels that stay: profiles of ports in ``~/.shed/tunnels.yaml``, and the processes that hold them open.

```yaml
profiles:
  default: [3000, "8080:80"]       # what `shed tunnels start NAME` opens: PORT, LOCAL:PORT, HOST:LOCAL:PORT
  db: ["5432"]
```

```
~/.shed/tunnels/SHED@SERVER.lock   locked by the process for as long as it lives; the kernel knows which process that is
                       .json      what it forwards
                       .log       what befell it, the last 256 KiB or so
```
"""

from __future__ import annotations

import difflib
import fcntl
import hashlib
import json
import os
import signal
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shed.client.address import Address
from shed.client.forward import Rule, parse_rule
from shed.errors import ConflictError, NotFoundError, ShedError, UnavailableError, UsageError
from shed.fsutil import atomic_write, storage_errors

DEFAULT_PROFILE = "default"
STOP_TIMEOUT = 5.0
"""Seconds that a process has to end by itself."""
_POLL = 0.02
_FLOCK = "hhqqi4x"
"""struct flock of Linux on 64 bits: type, whence, start, length, process; fcntl(2)."""


def profiles(path: Path | None = None) -> dict[str, list[Rule]]:
    """Return the profiles of the user's file, none when there is none.  Raises `UsageError` (INVALID_CONFIG)."""
    path = path or _home() / "tunnels.yaml"
    try:
        # Everything is text to this loader: YAML would take 3000:30 for a number of base 60.
        document = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)  # noqa: S506  safer than the safe one
        return _parse(document or {})
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
    except ShedError as error:
        reason = error.message
    raise UsageError(
        f"cannot use {path}: {reason}", code="INVALID_CONFIG", hint='write `profiles: {default: [3000, "8080:80"]}`'
    )


def _parse(document: object) -> dict[str, list[Rule]]:
    if not isinstance(document, dict):
        raise ValueError("it must hold keys and values")
    for key in document:
        if key != "profiles":
            raise ValueError(f"unknown key {key!r}; known is 'profiles'")
    found = document.get("profiles") or {}
    if not isinstance(found, dict):
        raise ValueError("profiles must hold names, and a list of ports for each")
    for name, ports in found.items():
        if not isinstance(ports, list) or not ports or not all(isinstance(port, str) for port in ports):
            raise ValueError(f"profile {name!r} must be a list of ports")
    return {name: [parse_rule(port) for port in ports] for name, ports in found.items()}


def profile(name: str) -> list[Rule]:
    """Return the rules of a profile.  Raises `NotFoundError` (UNKNOWN_PROFILE)."""
    found = profiles()
    if name not in found:
        near = difflib.get_close_matches(name, found, n=1)
        hint = (
            f"did you mean {near[0]}?" if near else f"add it to {_home() / 'tunnels.yaml'}, or name ports: -t 8080:80"
        )
        raise NotFoundError(f"there is no profile {name!r}", code="UNKNOWN_PROFILE", hint=hint)
    return found[name]


@dataclass(frozen=True, slots=True)
class Tunnels:
    """The tunnels of one shed: where their process keeps its files, whether it runs or not."""

    shed: str
    server: str
    """The server's name, or a short hash of its URL."""

    @classmethod
    def of(cls, shed: str, address: Address) -> Tunnels:
        """Return those of `shed` on the server at `address`."""
        return cls(shed, address.name or _short(str(address)))

    def file(self, kind: str) -> Path:
        """Return the path of its file of a kind: ``lock``, ``json`` or ``log``."""
        return folder() / f"{self.shed}@{self.server}.{kind}"

    def pid(self) -> int | None:
        """Return the process that holds them open, as the kernel knows it; None when there is none."""
        try:
            fd = os.open(self.file("lock"), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, asked))
        finally:
            os.close(fd)
        return None if kind == fcntl.F_UNLCK else int(pid)

    def hold(self) -> int:
        """Have this process be the one that holds them open, until it ends; returns a descriptor that must stay open.

        Raises `ConflictError` (TUNNELS_RUNNING).
        """
        with storage_errors(folder()):
            folder().mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self.file("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise self.running() from None
        return fd

    def running(self) -> ConflictError:
        """Return the error for tunnels that are open already."""
        hint = f"add --replace, or: shed tunnels stop {self.shed}"
        return ConflictError(f"tunnels to {self.shed} are open already", code="TUNNELS_RUNNING", hint=hint)

    def record(self, forwards: Sequence[dict[str, object]], url: str) -> None:
        """Write down what the process forwards, and the server's `url`."""
        atomic_write(
            self.file("json"), json.dumps({"forwards": list(forwards), "since": time.time(), "url": url}), mode=0o600
        )

    def recorded(self) -> dict[str, Any]:
        """Return what was written down; nothing when it cannot be read."""
        try:
            found = json.loads(self.file("json").read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def server_as_named(self, recorded: dict[str, Any]) -> str:
        """Return the server as the user has named it: its name, or the URL that was `recorded`."""
        url = recorded.get("url")
        return url if isinstance(url, str) and _short(url) == self.server else self.server

    def stop(self) -> bool:
        """End the process, and wait until it is gone; False when there was none.

        Only a process that holds the lock is ever signalled: it is looked up again once it can no longer be mistaken
        for another.
        """
        pid = self.pid()
        if pid is None:
            return False
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            for number in (signal.SIGTERM, signal.SIGKILL):
                if self.pid() != pid:
                    return True
                signal.pidfd_send_signal(handle, number)
                deadline = time.monotonic() + STOP_TIMEOUT
                while self.pid() == pid and time.monotonic() < deadline:
                    time.sleep(_POLL)
        except ProcessLookupError:
            return True
        finally:
            os.close(handle)
        if self.pid() == pid:
            raise UnavailableError(f"process {pid} does not end", hint=f"look at it: ps {pid}")
        return True


def known() -> Iterator[Tunnels]:
    """Yield all tunnels that there are files of."""
    for path in sorted(folder().glob("*@*.lock")):
        shed, _, server = path.name.removesuffix(".lock").partition("@")
        yield Tunnels(shed, server)


def folder() -> Path:
    """Return where the processes keep their files."""
    return _home() / "tunnels"


def _short(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:8]


def _home() -> Path:
    return Path("~/.shed").expanduser()
