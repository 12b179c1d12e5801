"""What a hostile registry does with a request: faults for `Registry.once`."""

from __future__ import annotations

import re
import select
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from support.registries.scripted_registry import Handler

MOST = 256 << 20
"""Bytes after which a flood ends, so that a test that fails ends too."""


@dataclass
class Flood:
    """Sends without end, whatever it was asked for, after a head with `headers`; counts what the other side's socket
    took.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    sent: int = 0
    begun: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    """Set when the other side has hung up, or everything was sent."""

    def __call__(self, handler: Handler) -> bool:
        """Answer a request."""
        handler.close_connection = True
        handler.send_response(self.status)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        handler.send_header("Connection", "close")
        handler.end_headers()
        self.begun.set()
        try:
            while self.sent < MOST:
                handler.wfile.write(bytes(1 << 16))
                self.sent += 1 << 16
        except OSError:
            pass
        finally:
            self.ended.set()
        return True


@dataclass
class Tap:
    """Sends the first bytes of what is asked for of `data`, and the rest when it is opened; tells when the other side
    has hung up.
    """

    data: bytes
    first: int
    begun: threading.Event = field(default_factory=threading.Event)
    open: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    start: int = 0
    """From where on it was asked for."""

    def __call__(self, handler: Handler) -> bool:
        """Answer a request."""
        match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        self.start = int(match[1]) if match else 0
        wanted = self.data[self.start :]
        handler.send_response(206 if match else 200)
        handler.send_header("Content-Length", str(len(wanted)))
        if match:
            handler.send_header("Content-Range", f"bytes {self.start}-{len(self.data) - 1}/{len(self.data)}")
        handler.end_headers()
        handler.wfile.write(wanted[: self.first])
        handler.wfile.flush()
        self.begun.set()
        while not self.open.is_set():
            if select.select([handler.connection], [], [], 0.02)[0] and not _peeked(handler.connection):
                self.left.set()
                return handler.end()
        handler.wfile.write(wanted[self.first :])
        return True


@dataclass
class Drip:
    """Sends `before`, and then `piece` again and again, with `pause` seconds between, until the other side hangs up;
    raw bytes.
    """

    before: bytes
    piece: bytes
    pause: float = 0.0
    sent: int = 0

    def __call__(self, handler: Handler) -> bool:
        """Answer a request."""
        handler.close_connection = True
        try:
            handler.wfile.write(self.before)
            while self.sent < MOST and not select.select([handler.connection], [], [], self.pause)[0]:
                handler.wfile.write(self.piece)
                self.sent += len(self.piece)
        except OSError:
            pass
        return True


def _peeked(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1, socket.MSG_PEEK)
    except ConnectionError:
        return b""
