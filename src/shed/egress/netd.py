"""``shed-netd``: the process that holds the relays of all sheds of one server.

It is not part of the server, so that a server that is stopped, upgraded or killed breaks no connection of any shed.
Whatever ends it, the sheds have no way out until it is there again: their cards lead nowhere else.

Run as ``python -I -m shed.egress.netd RUN LOGS``: it listens at ``RUN/netd.sock`` and writes what was decided to
``LOGS/egress.log``.  Only one runs for a folder: it holds a lock on ``RUN/netd.lock``.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from shed.egress import wire
from shed.egress.confine import confine
from shed.egress.decisions import Decisions, now
from shed.egress.netdfiles import DECISIONS, LOCK, LOG, SOCKET
from shed.egress.network.hostroutes import is_own
from shed.egress.orders import Orders
from shed.egress.relay.pump import Pipes
from shed.egress.relay.relay import Outside, Relay
from shed.egress.relay.resolver import Resolver
from shed.egress.watching import Watchers
from shed.errors import ShedError
from shed.version import VERSION

log = logging.getLogger(__name__)
_LOG_SIZE = 1 << 20
_PR_SET_DUMPABLE = 4
_IDLE = 1.0
"""Seconds without a shed and without a server after which the process ends."""
_HANDOVER = 10.0
"""Seconds in which one that has retired is asked for what the next one must know."""
_LONGEST_RETIRED = 7 * 86400.0
"""Seconds after which one that has retired ends, and the connections that it still has."""


class Netd:
    """The relays, by shed, and what they share."""

    def __init__(self, log_file: Path, lock: int) -> None:
        self._file_lock = lock
        """The descriptor that says that this is the one process of its folder; -1 when it has retired."""
        self._retired_at = 0.0
        self.clients = 0
        """Servers and others that are connected."""
        self._lock = threading.Lock()
        self._relays: dict[str, Relay] = {}
        self._pipes = Pipes()
        self._resolver = Resolver()
        self._decisions = Decisions(log_file)
        self.watchers = Watchers()
        self._outside = Outside(self._resolver.resolve, is_own, self._record, self._began, self._pipes)

    async def do(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Do what a message asks for.  Raises `ShedError`, `ValueError`, `KeyError` for what makes no sense."""
        what, sockets = message["do"], [socket.socket(fileno=descriptor) for descriptor in descriptors]
        try:
            if what == "hello":
                return {"version": VERSION, "retired": self._retired}
            if what == "list":
                return {"sheds": {name: len(relay.flows) for name, relay in self._relays.items()}}
            if what == "counts":
                return {"written": self._decisions.written, "left_out": self._decisions.left_out}
            if what == "retire":
                await self._retire()
                return {}
            shed = str(message["shed"])
            if what == "names":
                return {"names": self._relays[shed].names.to_json()}
            if what == "close":
                if (relay := self._relays.pop(shed, None)) is not None:
                    await relay.close()
                return {}
            orders = Orders.parse(message["orders"])
            if what == "rule":
                return {"cut": self._relays[shed].set_orders(orders)}
            if what != "open" or len(sockets) != 3 or self._retired:
                raise ValueError(f"{what!r} with {len(sockets)} sockets")
            while (old := self._relays.pop(shed, None)) is not None:  # another one may come while that waits
                await old.close()
            relay = self._relays[shed] = Relay(shed, orders, self._outside, message.get("names"))
            relay.start(*sockets)
            sockets = []
            return {}
        finally:
            for sock in sockets:
                sock.close()

    @contextlib.contextmanager
    def talking(self) -> Iterator[None]:
        """Count a client while the block lasts."""
        with self._lock:
            self.clients += 1
        try:
            yield
        finally:
            with self._lock:
                self.clients -= 1

    @property
    def idle(self) -> bool:
        """Whether nobody needs this process now."""
        if not self._retired:
            return not self._relays and not self.clients
        flows = any(relay.flows for relay in self._relays.values())
        return time.monotonic() - self._retired_at > (_LONGEST_RETIRED if flows else _HANDOVER)

    @property
    def _retired(self) -> bool:
        return self._file_lock < 0

    async def _retire(self) -> None:
        """Take no more connections, and let another process be the one of this folder."""
        if self._retired:
            return
        lock, self._file_lock = self._file_lock, -1
        self._retired_at = time.monotonic()
        await asyncio.gather(*(relay.retire() for relay in self._relays.values()))
        os.close(lock)

    async def close(self) -> None:
        """End all connections."""
        await asyncio.gather(*(relay.close() for relay in self._relays.values()))
        self._resolver.close()
        self._pipes.close()
        self._decisions.close()

    def turn(self) -> None:
        """Do what is to be done now and then; called every second."""
        for entry in self._decisions.turn():
            self.watchers.tell({"entry": entry})

    def _record(self, entry: dict[str, object]) -> None:
        self.watchers.tell({"entry": self._decisions.add(entry)})

    def _began(self, entry: dict[str, object]) -> None:
        self.watchers.tell({"began": {"time": now(), **entry}})


class _PrivateFile(RotatingFileHandler):
    """A file for its owner's eyes alone."""

    def _open(self) -> Any:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        return os.fdopen(descriptor, "a", encoding=self.encoding)


def _talk(client: socket.socket, netd: Netd, loop: asyncio.AbstractEventLoop) -> None:
    """Answer one client, in a thread of its own, until it leaves."""
    over = (wire.Closed, OSError, ValueError, CancelledError)  # the last when this process ends
    with client, contextlib.suppress(*over), netd.talking():
        while True:
            message, descriptors = wire.receive(client)
            if message.get("do") == "watch":
                wire.send(client, {"ok": True})
                asyncio.run_coroutine_threadsafe(netd.watchers.serve(client), loop).result()
                return
            try:
                answer = asyncio.run_coroutine_threadsafe(netd.do(message, descriptors), loop).result()
                wire.send(client, {"ok": True, **answer})
            except (ShedError, ValueError, KeyError, TypeError, AttributeError) as error:
                wire.send(client, {"error": str(error) if isinstance(error, ShedError) else repr(error)})


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path.unlink(missing_ok=True)  # the lock says that it is nobody's
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(16)
    return listener


async def _serve(run: Path, log_file: Path, lock: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    netd = Netd(log_file, lock)
    with _listen(run / SOCKET) as listener:
        listener.setblocking(False)

        def take() -> None:
            with contextlib.suppress(OSError):
                client, _ = listener.accept()
                threading.Thread(target=_talk, args=(client, netd, loop), daemon=True).start()

        loop.add_reader(listener, take)
        confine(log_file.parent)
        gc.collect()
        gc.freeze()  # what was imported stays: to look through it takes hundredths of a second, in which all sheds wait
        print("ready", flush=True)  # noqa: T201  whoever started this waits for it
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_IDLE):
                    await ended.wait()
            netd.turn()
            if netd.idle:
                break
        loop.remove_reader(listener)
    await netd.close()


def keep_private() -> None:
    """Have this process's memory, which has the values of secrets, be in no core file, and read by root alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main(run: str, logs: str) -> int:
    """Run until SIGTERM; return the exit code, 3 when another one runs for that folder."""
    handler = _PrivateFile(Path(logs) / LOG, maxBytes=_LOG_SIZE, backupCount=1, encoding="utf-8", delay=True)
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", handlers=[handler]
    )
    lock = os.open(Path(run) / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 3
    keep_private()
    os.environ["LOCALDOMAIN"] = "."  # resolv.conf(5): NAME is asked for, never NAME.SEARCH, which the rules do not know
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(_serve(Path(run), Path(logs) / DECISIONS, lock))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
