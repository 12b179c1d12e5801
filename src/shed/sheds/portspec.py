"""How a published port is written: ``[ADDRESS:][PORT:]SHEDPORT``, as docker has it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from shed.errors import UsageError

_SPELLING = re.compile(
    r"(?:(?P<address>\[[0-9A-Fa-f:.]+\]|\d+(?:\.\d+){3}|localhost):(?=\d*:))?"
    r"(?:(?P<port>\d{0,5}):)?(?P<shed>\d{1,5})",
    re.ASCII,
)
_MOST = 65535


@dataclass(frozen=True, slots=True)
class Published:
    """A port of the host that leads to a port of a shed."""

    address: str | None
    """Where the host listens; None: on its loopback, by IPv4 and IPv6."""
    port: int
    """0: a free one is chosen, and kept."""
    shed_port: int

    @classmethod
    def parse(cls, text: str) -> Published:
        """Return what `text` means.  Raises `UsageError` (INVALID_PORT)."""
        found = _SPELLING.fullmatch(text)
        if found is None:
            raise _wrong(text)
        port, shed_port = int(found["port"] or 0), int(found["shed"])
        if port > _MOST or not 1 <= shed_port <= _MOST:
            raise _wrong(text)
        try:
            written = found["address"]
            address = None if written in {None, "localhost"} else str(ipaddress.ip_address(written.strip("[]")))
        except ValueError:
            raise _wrong(text) from None
        return cls(address, port, shed_port)

    @property
    def host(self) -> str:
        """The address as it stands in a URL."""
        address = self.address or "localhost"
        return f"[{address}]" if ":" in address else address

    def __str__(self) -> str:
        """Return it as `parse` reads it."""
        return f"{self.host}:{self.port}:{self.shed_port}"


def _wrong(text: str) -> UsageError:
    return UsageError(
        f"{text[:60]!r} is not a port to publish",
        code="INVALID_PORT",
        hint="write [ADDRESS:][PORT:]SHEDPORT, TCP alone, for example 8080:80, 80, or [::1]:8080:80",
    )
