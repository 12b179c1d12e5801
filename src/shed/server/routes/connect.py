"""``/api/sheds/{name}/connect/{port}``: the bytes of one TCP connection to the guest's loopback."""

from __future__ import annotations

from shed.errors import UsageError
from shed.server.app import Route, Server
from shed.server.http import Reply, Request, Upgrade
from shed.server.routes.exec import check_upgrade

PROTOCOL = "shed-tcp"


async def connect(server: Server, request: Request) -> Reply:
    """Turn the connection into one to a port of the shed."""
    check_upgrade(request, PROTOCOL)
    text = request.params["port"]
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise UsageError(f"{text!r} is not a port", code="INVALID_PORT", hint="choose from 1 to 65535")
    return Upgrade(PROTOCOL, await server.manager.open_port(request.params["name"], int(text)), half_close=True)


ROUTES = (Route("GET", "/api/sheds/{name}/connect/{port}", connect),)
