"""Telling the service manager that the server is ready: one datagram to ``NOTIFY_SOCKET`` (sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import socket


def ready() -> None:
    """Say that requests are answered from now on, where somebody waits for that."""
    address = os.environ.pop("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, contextlib.suppress(OSError):
            manager.sendto(b"READY=1", "\0" + address[1:] if address.startswith("@") else address)
