"""``/api/sheds/{name}/exec``: one command, as exec frames both ways (see `shed.guest.protocol`)."""

from __future__ import annotations

from shed.api.access import Right
from shed.errors import UsageError
from shed.server.app import Route, Server
from shed.server.http import Reply, Request, Upgrade

PROTOCOL = "shed-exec"


async def execute(server: Server, request: Request) -> Reply:
    """Turn the connection into an exec stream, starting the shed when it is stopped."""
    check_upgrade(request, PROTOCOL)
    return Upgrade(PROTOCOL, await server.manager.open_exec(request.params["name"], request.tell), half_close=False)


class UpgradeError(UsageError):
    """The request does not ask for the protocol that this path speaks."""

    code = "UPGRADE_REQUIRED"
    http_status = 426


def check_upgrade(request: Request, protocol: str) -> None:
    """Raise `UpgradeError` unless the client asks to go on with `protocol`."""
    asked = [word.strip().lower() for word in request.headers.get("connection", "").split(",")]
    if "upgrade" not in asked or request.headers.get("upgrade", "").lower() != protocol:
        raise UpgradeError(
            f"this path speaks {protocol} alone", hint=f"send `Connection: Upgrade` and `Upgrade: {protocol}`"
        )


ROUTES = (Route("POST", "/api/sheds/{name}/exec", Right.USE, execute),)
