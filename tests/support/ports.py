"""Ports for servers that tests start."""

from __future__ import annotations

import contextlib
import random
import socket


def free_port() -> int:
    """Return a port that was free a moment ago, and that no client is given for its own end: those are above 32767."""
    chance = random.SystemRandom()  # two processes with one seed would meet at each port
    while True:
        port = chance.randrange(16384, 32768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
