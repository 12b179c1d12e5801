"""Checks of SSH: the port, by a stranger's login, and where sheds may use the agents of those who come."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Iterator

from shed.checks import Result, Status
from shed.config.server import find_settings, load_settings
from shed.errors import ShedError, UnavailableError
from shed.server import local
from shed.server.doctor.host import Host
from shed.sheds.folders import Folders, names
from shed.sheds.metadata import load

_SECONDS = 20.0


def ssh_port(host: Host) -> Iterator[Result]:
    """The SSH port lets in nobody by a key that it does not know."""
    try:
        info = local.ask(host.paths.socket, "GET", "/api/info")
    except UnavailableError as error:
        yield Result("ssh port", Status.WARN, f"nothing could be tried: {error.message}", "shed server start")
        return
    port, settings = info.get("ssh_port"), load_settings(host.config or find_settings())
    if not isinstance(port, int):
        if settings.ssh_port == 0:
            yield Result("ssh port", Status.PASS, "there is none")
        else:
            why = str(info.get("ssh", "")).removeprefix("off: ")
            yield Result("ssh port", Status.WARN, f"there is none: {why}", "see ssh_port in server.yaml")
        return
    address = ipaddress.ip_address(settings.ssh_bind_address)
    reached = ("::1" if address.version == 6 else "127.0.0.1") if address.is_unspecified else str(address)
    try:
        entered = asyncio.run(_entered(reached, port))
    except (OSError, TimeoutError) as error:
        yield Result(
            "ssh port", Status.WARN, f"nothing could be tried: {reached}:{port}: {error}", "start the server again"
        )
        return
    if entered:
        detail = f"port {port} lets in whoever comes, by a key that nobody knows"
        yield Result("ssh port", Status.FAIL, detail, "another program may have that port; or start the server again")
    else:
        yield Result("ssh port", Status.PASS, f"port {port} refuses who has no key, and a key that it does not know")


def ssh_agents(host: Host) -> Iterator[Result]:
    """No shed may use an agent anywhere."""
    name, anywhere = "ssh agents", []
    for shed in names(host.paths):
        with contextlib.suppress(ShedError):
            if load(Folders(host.paths, shed).instance).agent_rule.everywhere:
                anywhere.append(shed)
    if anywhere:
        detail = f"whatever runs in {', '.join(anywhere)} logs in at any host by an agent that is forwarded to it"
        yield Result(name, Status.WARN, detail, f"shed update {anywhere[0]} --ssh-agent HOST")
    else:
        yield Result(name, Status.PASS, "a forwarded agent is used at hosts that were named, and nowhere else")


async def _entered(address: str, port: int) -> bool:
    """Say whether a stranger, with a key that was just made, gets in."""
    import asyncssh  # noqa: PLC0415  it takes a moment

    key = asyncssh.generate_private_key("ssh-ed25519")
    try:
        async with asyncio.timeout(_SECONDS):
            options = {
                "username": "doctor",
                "client_keys": [key],
                "agent_path": None,
                "known_hosts": None,
                "config": None,
            }
            async with asyncssh.connect(address, port, **options):
                return True
    except asyncssh.PermissionDenied:
        return False
    except asyncssh.Error as error:
        raise OSError(f"it is not as SSH should be: {error.reason}") from None
