"""What a hostile registry does with a request: faults for `Registry.once`."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from support.scripted_registry import Handler

MOST = 256 << 20
"""Bytes after which a flood ends, so that a test that fails ends too."""


@dataclass
class Flood:
    """Sends without end, whatever it was asked for, after a head with `headers`; counts what the other side's socket took."""

    headers: Mapping[str, str] = field(default_factory=dict)
    sent: int = 0
    begun: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    """Set when the other side has hung up, or everything was sent."""

    def __call__(self, handler: Handler) -> bool:
        """Answer a request."""
        handler.close_connection = True
        handler.send_response(200)
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
