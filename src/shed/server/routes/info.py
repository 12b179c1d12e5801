"""``/api/info`` and ``/api/server``: the server itself."""

from __future__ import annotations

import asyncio
import os

from shed.api.access import Right
from shed.errors import ForbiddenError
from shed.server.app import Route, Server
from shed.server.http import Reply, Request, json_answer
from shed.server.ssh.hostkey import public_key
from shed.version import VERSION


async def info(server: Server, request: Request) -> Reply:
    """Say who this is."""
    about: dict[str, object] = {"name": server.settings.name, "version": VERSION, "backend": server.manager.backend}
    if server.settings.http_port is not None:
        about["http_port"] = server.settings.http_port
    about |= {"ssh_port": server.ssh.port} if server.ssh.port is not None else {"ssh": f"off: {server.ssh.off}"}
    if request.caller.local:
        about |= {"pid": os.getpid(), "data_dir": str(server.paths.data), "socket": str(server.paths.socket)}
    return json_answer(about)


async def ssh_host_key(server: Server, request: Request) -> Reply:
    """Say by which key the SSH front is known."""
    return json_answer({"host_key": await asyncio.to_thread(public_key, server.paths.data)})


async def stop(server: Server, request: Request) -> Reply:
    """End the server; running sheds stay."""
    if not request.caller.local:
        raise ForbiddenError("a server is stopped on its own machine only", hint="run `shed server stop` there")
    server.stop.set()
    return json_answer({"status": "stopping"})


ROUTES = (
    Route("GET", "/api/info", Right.READ, info),
    Route("GET", "/api/ssh-host-key", Right.READ, ssh_host_key),
    Route("POST", "/api/server/stop", Right.ADMIN, stop),
)
