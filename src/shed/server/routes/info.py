"""``/api/info`` and ``/api/server``: the server itself."""

from __future__ import annotations

import os

from shed.server.app import ForbiddenError, Route, Server
from shed.server.http import Reply, Request, json_answer
from shed.version import VERSION


async def info(server: Server, request: Request) -> Reply:
    """Say who this is."""
    about: dict[str, object] = {"name": server.settings.name, "version": VERSION, "backend": server.manager.backend}
    if server.settings.http_port is not None:
        about["http_port"] = server.settings.http_port
    if request.local:
        about |= {"pid": os.getpid(), "data_dir": str(server.paths.data), "socket": str(server.paths.socket)}
    return json_answer(about)


async def stop(server: Server, request: Request) -> Reply:
    """End the server; running sheds stay."""
    if not request.local:
        raise ForbiddenError("a server is stopped on its own machine only", hint="run `shed server stop` there")
    server.stop.set()
    return json_answer({"status": "stopping"})


ROUTES = (Route("GET", "/api/info", info), Route("POST", "/api/server/stop", stop))
