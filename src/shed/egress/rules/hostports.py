"""Ports of the host's loopback that a shed may reach, under the one name that stands for the host."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from shed.egress.rules.addresses import Address
from shed.errors import UsageError

HOST = "host.shed.internal"
"""What the host is called in every shed.  No other name server is ever asked for it."""
LOOPBACK: tuple[Address, ...] = (ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1"))
"""Where the host's ports are looked for, in this order."""
_SPELLING = re.compile(r"(\d{1,5})(?::(\d{1,5}))?", re.ASCII)
_MOST = 65535


@dataclass(frozen=True, slots=True)
class HostPort:
    """One port of the host's loopback, and the port of `HOST` at which the shed finds it."""

    port: int
    shed_port: int

    @classmethod
    def parse(cls, text: str) -> HostPort:
        """Return what ``PORT[:SHEDPORT]`` means.  Raises `UsageError` (INVALID_PORT)."""
        found = _SPELLING.fullmatch(text)
        port = int(found[1]) if found else 0
        shed_port = int(found[2]) if found and found[2] else port
        if not (1 <= port <= _MOST and 1 <= shed_port <= _MOST):
            raise UsageError(
                f"{text[:40]!r} is not a port of the host",
                code="INVALID_PORT",
                hint="write PORT, or PORT:PORT-IN-THE-SHED, for example 5432 or 5432:15432",
            )
        return cls(port, shed_port)

    def __str__(self) -> str:
        """Return it as `parse` reads it."""
        return f"{self.port}:{self.shed_port}"
