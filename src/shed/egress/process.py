"""The relay's process from the server's side: found, or started so that it outlives us, and told what to do."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shed.egress import wire
from shed.egress.netdfiles import LOG, RETIRED, SOCKET
from shed.egress.orders import Orders
from shed.errors import UnavailableError
from shed.fsutil import locked
from shed.version import VERSION

_TIMEOUT = 30.0
_KEPT = ("PATH", "HOME", "LANG", "LC_", "TZ", "TMPDIR", "PYTHON", "LD_LIBRARY_PATH", "SSL_CERT_", "RES_OPTIONS")
"""How the variables begin that the process gets of the server's: others may be secrets."""


class NetdProcess:
    """The relay's process of the server whose sockets are in `run` and whose logs are in `logs`.

    All of it blocks for a moment; several threads may use it.
    """

    def __init__(self, run: Path, logs: Path) -> None:
        self._run, self._logs = run, logs
        self._lock = threading.Lock()
        self._names: dict[str, dict[str, str]] = {}
        """What addresses stand for, by shed, as a process knew it that has retired."""

    def renew(self) -> bool:
        """Have a process of another version retire, whose connections go on; return whether there was one.

        Raises `UnavailableError`.
        """
        with self._lock:
            sock = self._dial()
            if sock is None:
                return False
            with sock:
                if self._ask(sock, {"do": "hello"}) == {"ok": True, "version": VERSION, "retired": False}:
                    return False
                self._ask(sock, {"do": "retire"})
                for shed in self._ask(sock, {"do": "list"})["sheds"]:
                    self._names[shed] = self._ask(sock, {"do": "names", "shed": shed})["names"]
            number = next(number for number in itertools.count() if not (self._run / f"{RETIRED}{number}").exists())
            (self._run / SOCKET).rename(self._run / f"{RETIRED}{number}")
            return True

    def open(self, shed: str, orders: Orders, sockets: Sequence[socket.socket]) -> None:
        """Have the shed's connections relayed; `sockets` are its network namespace's.  Raises `UnavailableError`."""
        self._rule_retired(shed, orders)
        names = self._names.pop(shed, {})
        message = {"do": "open", "shed": shed, "orders": orders.to_json(), "names": names}
        self._call(message, [sock.fileno() for sock in sockets])

    def rule(self, shed: str, orders: Orders) -> int:
        """Have these orders hold from now on; return how many connections that has cut.  Raises `UnavailableError`."""
        cut = self._rule_retired(shed, orders)
        return cut + int(self._call({"do": "rule", "shed": shed, "orders": orders.to_json()})["cut"])

    def _rule_retired(self, shed: str, orders: Orders) -> int:
        """As `rule`, for processes that have retired.

        One that does not understand the orders, or has nothing of the shed, ends all its connections.
        """
        message, cut = {"do": "rule", "shed": shed, "orders": orders.to_json()}, 0
        for sock in self._retired():
            with sock:
                try:
                    cut += int(self._ask(sock, message)["cut"])
                except UnavailableError:
                    self._ask(sock, {"do": "close", "shed": shed})
        return cut

    def close(self, shed: str) -> None:
        """Relay nothing for the shed any more.  Raises `UnavailableError`."""
        for sock in self._retired():
            with sock:
                self._ask(sock, {"do": "close", "shed": shed})
        self._call({"do": "close", "shed": shed})

    def flows(self) -> dict[str, int]:
        """Return how many connections sheds have now, those of processes that have retired included.

        Raises `UnavailableError`.
        """
        found = Counter(self.sheds())
        for sock in self._retired():
            with sock:
                found.update(
                    {str(name): int(count) for name, count in self._ask(sock, {"do": "list"})["sheds"].items()}
                )
        return dict(found)

    def sheds(self) -> dict[str, int]:
        """Return the sheds that it relays for, and how many connections each has now.  Raises `UnavailableError`."""
        found = self._call({"do": "list"})["sheds"]
        return {str(name): int(count) for name, count in found.items()}

    def log_counts(self) -> tuple[dict[str, int], dict[str, int]] | None:
        """Return the bytes that the process has written to its log, and the entries that are missing there, by shed.

        None when it does not run: it is not started for that.  Raises `UnavailableError`.
        """
        sock = self._dial()
        if sock is None:
            return None
        with sock:
            counts = self._ask(sock, {"do": "counts"})
        return counts["written"], counts["left_out"]

    def watch(self) -> list[socket.socket]:
        """Return a connection by which the process tells what it decides, and which ends with it.

        Behind it are those to processes that have retired.  Raises `UnavailableError`.
        """
        found = [self._connect(), *self._retired()]
        try:
            for sock in found:
                self._ask(sock, {"do": "watch"})
        except BaseException:
            for sock in found:
                sock.close()
            raise
        return found

    def _retired(self) -> list[socket.socket]:
        """Return connections to the processes that have retired and have not ended.  Raises `UnavailableError`."""
        found = []
        for path in self._run.glob(f"{RETIRED}*"):
            sock = self._dial(path)
            if sock is None:
                path.unlink(missing_ok=True)
            else:
                found.append(sock)
        return found

    def _call(self, message: dict[str, Any], descriptors: list[int] | None = None) -> dict[str, Any]:
        with self._connect() as sock:
            return self._ask(sock, message, descriptors)

    @staticmethod
    def _ask(sock: socket.socket, message: dict[str, Any], descriptors: list[int] | None = None) -> dict[str, Any]:
        try:
            wire.send(sock, message, descriptors)
            answer, _ = wire.receive(sock)
        except (wire.Closed, OSError, ValueError) as error:
            raise UnavailableError(f"the network relay does not answer: {error!r}", code="NO_RELAY") from error
        if "error" in answer:
            raise UnavailableError(f"the network relay refuses: {answer['error']}", code="NO_RELAY")
        return answer

    def _connect(self) -> socket.socket:
        """Return a connection to the process, started if need be."""
        with self._lock:
            sock = self._dial()
            if sock is None:
                with locked(self._run / "netd.start.lock", limit=_TIMEOUT):
                    sock = self._dial()
                    if sock is None:
                        self._start()
                        sock = self._dial()
        if sock is None:
            raise UnavailableError("the network relay does not run", code="NO_RELAY")
        return sock

    def _dial(self, path: Path | None = None) -> socket.socket | None:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(_TIMEOUT)
        try:
            sock.connect(str(path or self._run / SOCKET))
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            return None
        except OSError as error:
            sock.close()
            raise UnavailableError(f"the network relay cannot be reached: {error.strerror}", code="NO_RELAY") from error
        return sock

    def _start(self) -> None:
        """Start the process, and wait until it is ready or has ended."""
        with (self._logs / LOG).open("ab") as messages:
            child = subprocess.Popen(
                [sys.executable, "-m", "shed.egress.netd", str(self._run), str(self._logs)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=messages,
                cwd="/",
                env={name: value for name, value in os.environ.items() if name.startswith(_KEPT)},
                start_new_session=True,
            )
        assert child.stdout is not None
        with child.stdout as ready:
            select.select([ready], [], [], _TIMEOUT)
            if not ready.readline():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(1)
        threading.Thread(target=child.wait, daemon=True).start()  # or it would stay as a zombie
