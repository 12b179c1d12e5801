"""``/api/sheds/{name}/connect/{port}``: the bytes of one TCP connection to the guest's loopback."""

from __future__ import annotations

from shed.api.access import Right
from shed.server.app import Route, Server
from shed.server.http import Reply, Request, Upgrade, whole
from shed.server.routes.exec import check_upgrade

PROTOCOL = "shed-tcp"


async def connect(server: Server, request: Request) -> Reply:
    """Turn the connection into one to a port of the shed."""
    check_upgrade(request, PROTOCOL)
    port = whole(request.params["port"], "a port", 1, 65535, code="INVALID_PORT")
    return Upgrade(PROTOCOL, await server.manager.open_port(request.params["name"], port), half_close=True)


ROUTES = (Route("GET", "/api/sheds/{name}/connect/{port}", Right.USE, connect),)
