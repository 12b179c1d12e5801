"""A TCP proxy on loopback that counts what a server sends, slows it down, and cuts its connections."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

BUFFER = 64 << 10
"""Bytes of a socket's buffer, of which Linux makes twice as many."""


class CountingProxy:
    """Passes connections on to the port of `target`; each gets at most `rate` bytes a second."""

    def __init__(self, target: str, rate: int) -> None:
        self.passed = 0
        """Bytes that clients were sent."""
        self.flows = threading.Event()
        """Nothing is passed on to clients while it is not set."""
        self.flows.set()
        self.cut_at: int | None = None
        """Once so many bytes were passed, all connections are cut, and new ones too."""
        self.hold_at: int | None = None
        """Once so many bytes were passed, `flows` is cleared."""
        self._rate = rate
        self._lock = threading.Lock()
        self._busy = 0
        host, port = target.split(":")

        class Connection(socketserver.BaseRequestHandler):
            request: socket.socket

            def handle(connection) -> None:  # noqa: N805
                connection.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
                self._count(1)
                with contextlib.suppress(OSError), socket.create_connection((host, int(port))) as server:
                    up = threading.Thread(target=_copy, args=(connection.request, server), daemon=True)
                    up.start()
                    self._down(server, connection.request)
                self._count(-1)

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection)
        self.server.daemon_threads = True
        self.address = f"localhost:{self.server.server_address[1]}"

    def settle(self) -> None:
        """Wait until all connections have ended: then no more is passed, or still to be counted."""
        while self._busy:
            time.sleep(0.005)

    def _is_cut(self) -> bool:
        return self.cut_at is not None and self.passed >= self.cut_at

    def _count(self, change: int) -> None:
        with self._lock:
            self._busy += change

    def _down(self, server: socket.socket, client: socket.socket) -> None:
        while not self._is_cut() and (data := server.recv(BUFFER)):
            self.flows.wait()
            client.sendall(data)
            with self._lock:
                self.passed += len(data)
                if self.hold_at is not None and self.passed >= self.hold_at:
                    self.hold_at = None
                    self.flows.clear()
            time.sleep(len(data) / self._rate)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(BUFFER):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def counting_proxy(target: str, *, rate: int = 1 << 40) -> Iterator[CountingProxy]:
    """Yield a proxy to ``host:port``."""
    proxy = CountingProxy(target, rate)
    thread = threading.Thread(target=proxy.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.flows.set()
        proxy.server.shutdown()
        proxy.server.server_close()
        thread.join()
