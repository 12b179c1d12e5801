"""Which ports of this host a shed may have: never a way to the server, or from one shed to another."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from shed.egress.rules.hostports import HostPort
from shed.errors import ConflictError, NotFoundError, UsageError
from shed.sheds.metadata import Record
from shed.sheds.portspec import Published

MOST_PORTS = 64
"""That one shed publishes."""
_Port = TypeVar("_Port", Published, HostPort)


@dataclass(frozen=True, slots=True)
class Host:
    """What the ports of a shed are checked against."""

    own_ports: Mapping[int, str]
    """The server's, and what for."""
    addresses: Collection[str | None]
    """Where ports may be published; None is its loopback."""
    records: Iterable[Record]
    """Of all sheds."""


def check(name: str, published: Sequence[Published], host_ports: Sequence[HostPort], host: Host) -> None:
    """Say whether the shed `name` may have these ports, whether or not they are free.

    Raises `UsageError`, `ConflictError` (PORT_IN_USE).
    """
    if max(len(published), len(host_ports)) > MOST_PORTS:
        raise UsageError(f"a shed cannot have more than {MOST_PORTS} ports", code="INVALID_PORT", hint="name fewer")
    _check_once([one.port for one in published if one.port], "of this host is published")
    _check_once([one.shed_port for one in host_ports], "of host.shed.internal leads to the host")
    for one in published:
        if one.address not in host.addresses:
            raise UsageError(
                f"ports of sheds are published on this host's loopback, not on {one.address}",
                code="INVALID_PORT",
                hint="leave the address out, or have publish_addresses in server.yaml allow it",
            )
    for port in [one.port for one in published] + [other.port for other in host_ports]:
        if (use := host.own_ports.get(port)) is not None:
            raise _in_use(f"port {port} is this server's own: {use}", "choose another")
    lead, reach = {one.port: name for one in published}, {one.port: name for one in host_ports}
    for record in host.records:
        if record.name != name:
            lead.update({one.port: record.name for one in record.published if one.port in reach})
            reach.update({one.port: record.name for one in record.open_host_ports if one.port in lead})
    for port in lead.keys() & reach.keys():
        raise _in_use(
            f"port {port} of this host leads to shed {lead[port]!r} and would be open to shed {reach[port]!r}: no "
            "shed reaches another",
            "choose another port, or take one of them away with `shed ports`",
        )


def without(known: Sequence[_Port], gone: Collection[int], what: str) -> list[_Port]:
    """Return those of `known` whose number on this host is none of `gone`.

    Raises `NotFoundError` (PORT_NOT_PUBLISHED) for a number that none has; `what` ends the sentence.
    """
    if missing := set(gone) - {one.port for one in known}:
        raise NotFoundError(f"port {min(missing)} is not {what}", code="PORT_NOT_PUBLISHED")
    return [one for one in known if one.port not in gone]


def _check_once(ports: Sequence[int], what: str) -> None:
    for one in ports:
        if ports.count(one) > 1:
            raise UsageError(f"port {one} {what} twice", code="INVALID_PORT", hint="name each port once")


def _in_use(sentence: str, hint: str) -> ConflictError:
    return ConflictError(sentence, code="PORT_IN_USE", hint=hint)
