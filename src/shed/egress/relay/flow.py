"""One connection out of a shed: where it is to go, what was decided, and what came of it."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field
from typing import Protocol

from shed.egress.orders import Orders
from shed.egress.rules.addresses import MADE_UP, Address
from shed.egress.rules.hostports import HOST, HostPort
from shed.egress.rules.policy import Verdict
from shed.proxies import Proxy


class Counted(Protocol):
    """What copies bytes, and counts them."""

    @property
    def sent(self) -> int:
        """Bytes that went out of the shed."""

    @property
    def received(self) -> int:
        """Bytes that came into the shed."""


@dataclass(slots=True, eq=False)
class Flow:
    """A connection from its first packet to its end."""

    name: str | None
    """The host's name; None for a bare address."""
    address: Address
    """What the shed connected to; for a name, what is dialled once that is known."""
    port: int
    """The one that the shed connected to."""
    client: socket.socket
    host_port: HostPort | None = None
    """Set for a port of the host's own loopback: what it leads to."""
    proxy: Proxy | None = None
    """By which the other side is reached; its name is looked up there."""
    verdict: Verdict = field(default_factory=lambda: Verdict(False, ""))
    began: float = field(default_factory=time.monotonic)
    outside: socket.socket | None = None
    """The other side, if this process reads what comes from there."""
    pump: Counted | None = None
    cut: bool = False
    """Whether it was ended because the rules have changed."""
    error: str | None = None
    """Why it did not come about although it is allowed."""

    @property
    def host(self) -> str:
        """The name, or the bare address."""
        return self.name or str(self.address)

    @property
    def target(self) -> str:
        """The host and the port as people write them."""
        host = self.name or (f"[{self.address}]" if self.address.version == 6 else str(self.address))
        return f"{host}:{self.port}"

    def still_allowed(self, orders: Orders) -> Verdict:
        """Return what `orders` say of the connection as it is."""
        if self.name == HOST:
            verdict = orders.about_host(self.port)
            moved = verdict.allowed and orders.host_port(self.port) != self.host_port
            return Verdict(False, f"host-port {self.host_port} was taken away") if moved else verdict
        policy = orders.policy
        if self.name is not None:
            verdict = policy.about_name(self.name, self.port)
            if not verdict.allowed or self.address in MADE_UP:  # nothing was dialled yet
                return verdict
        return policy.about_address(self.address, self.port, named=self.name is not None)

    def record(self, shed: str) -> dict[str, object]:
        """Return what the log says of it."""
        known: dict[str, object | None] = {
            "shed": shed,
            "name": self.name,
            "address": str(self.address),
            "port": self.port,
            "proxy": None if self.proxy is None else str(self.proxy),
            "allowed": self.verdict.allowed and not self.cut,
            "rule": self.verdict.reason or None,
            "error": self.error,
            "cut": self.cut or None,
            "sent": self.pump.sent if self.pump else None,
            "received": self.pump.received if self.pump else None,
            "seconds": round(time.monotonic() - self.began, 3),
        }
        return {key: value for key, value in known.items() if value is not None}
