"""Sheds whose network is not ruled (`--network nic`): who may have one, and how that is told."""

from __future__ import annotations

from shed.api.making import CreateShed
from shed.config.server import Settings
from shed.egress.network import uplink
from shed.errors import ConflictError, ForbiddenError, UnavailableError, UsageError
from shed.sheds.metadata import Record

WARNING = (
    "its network is not ruled (--network nic): it reaches every public address, by UDP and ICMP too, and no log has it"
)


def checked(request: CreateShed, settings: Settings) -> str:
    """Return the kind of network that a new shed gets.  Raises what `check` does, and `UsageError`."""
    if request.network != "nic":
        return "relay"
    if request.egress is not None or request.host_ports or request.secrets:
        raise UsageError(
            "no rule is asked about a network of the kind nic, so it has no profiles, secrets or ports of the host",
            hint="leave out --network nic, or --egress, --secret and --host-port",
        )
    check(settings)
    return "nic"


def check(settings: Settings) -> None:
    """Say whether a shed with such a network may run here.

    Raises `ForbiddenError` (NIC_REFUSED) unless the administrator allows it, `UnavailableError` (TOOL_MISSING).
    """
    if settings.nic != "allowed":
        raise ForbiddenError(
            "this server does not allow networks that are not ruled",
            code="NIC_REFUSED",
            hint="for TCP, a rule is enough: shed egress profile set; or set network.nic to allowed in server.yaml",
        )
    if problem := uplink.problem():
        raise UnavailableError(
            f"a network of the kind nic cannot be made: {problem}",
            code="TOOL_MISSING",
            hint="install it: sudo apt-get install slirp4netns",
        )


def check_ruled(record: Record) -> None:
    """Raise `ConflictError` (NETWORK_NOT_RULED) for a shed to which rules mean nothing."""
    if not record.is_ruled:
        raise ConflictError(
            f"the network of shed {record.name!r} is not ruled: it was made with --network nic",
            code="NETWORK_NOT_RULED",
            hint=f"`shed stop {record.name}` cuts it off; make another shed without --network nic",
        )
