"""The server itself: ``/api/info``, ``/api/server`` and the like; ``/api/system``: what its data takes up."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from shed.api import endpoints
from shed.api import server as api
from shed.api.base import API_VERSION, NoBody, Nothing, WorkParams
from shed.errors import ForbiddenError
from shed.progress import Progress
from shed.server.app import Server, route
from shed.server.call import Call, Work, answer
from shed.server.ssh.hostkey import public_key
from shed.threads import in_long_thread
from shed.version import VERSION


async def info(server: Server, call: Call[Nothing, NoBody]) -> api.Info:
    """Say who this is."""
    local = call.caller.local
    diagnostics = server.manager.backend.capabilities.diagnostics
    return api.Info(
        name=server.settings.name,
        version=VERSION,
        api_version=API_VERSION,
        backend=server.manager.backend.name,
        acceleration=await asyncio.to_thread(diagnostics.way) if diagnostics is not None else "",
        http_port=server.settings.http_port,
        ssh_port=server.ssh.port,
        ssh=f"off: {server.ssh.off}" if server.ssh.port is None else "",
        pid=os.getpid() if local else None,
        data_dir=str(server.paths.data) if local else "",
        socket=str(server.paths.socket) if local else "",
    )


async def openapi(server: Server, call: Call[Nothing, NoBody]) -> dict[str, Any]:
    """Describe the API."""
    from shed.api.openapi import document  # noqa: PLC0415  few ask

    return await asyncio.to_thread(document)


async def ssh_host_key(server: Server, call: Call[Nothing, NoBody]) -> api.HostKey:
    """Say by which key the SSH front is known."""
    return api.HostKey(host_key=await asyncio.to_thread(public_key, server.paths.data))


async def stop(server: Server, call: Call[Nothing, NoBody]) -> api.Stopping:
    """End the server; running sheds stay."""
    if not call.caller.local:
        raise ForbiddenError("a server is stopped on its own machine only", hint="run `shed server stop` there")
    server.stop.set()
    return api.Stopping()


async def usage(server: Server, call: Call[Nothing, NoBody]) -> api.Usage:
    """Say what is taken up, by kind."""
    from shed.sheds.usage import usage as look  # noqa: PLC0415  a server starts faster without

    saved = server.manager.backend.capabilities.templates
    return answer(api.Usage, await in_long_thread(lambda: look(server.paths, server.images.store, saved)))


async def prune(server: Server, call: Call[WorkParams, api.Prune]) -> Work[api.Pruned]:
    """Free space in the scopes that are true in the body, the usual ones when none is."""
    from shed.sheds.cleaning import DEFAULT_SCOPES, DEFAULT_UNTIL, SCOPES, Cleaner  # noqa: PLC0415  a server starts faster without
    from shed.sheds.consoles import DEFAULT_TAIL  # noqa: PLC0415

    wanted = call.body
    scopes = frozenset(scope for scope in SCOPES if getattr(wanted, scope)) or DEFAULT_SCOPES
    until = DEFAULT_UNTIL if wanted.until_seconds is None else wanted.until_seconds
    tail = DEFAULT_TAIL if wanted.log_tail_bytes is None else wanted.log_tail_bytes
    cleaner = Cleaner(server.paths, server.manager, server.images)

    async def work(progress: Progress) -> api.Pruned:
        done = await cleaner.clean(scopes, until=until, log_tail=tail, dry_run=wanted.dry_run, progress=progress)
        return answer(api.Pruned, done)

    return Work(work)


ROUTES = (
    route(endpoints.INFO, info),
    route(endpoints.OPENAPI, openapi),
    route(endpoints.SSH_HOST_KEY, ssh_host_key),
    route(endpoints.STOP_SERVER, stop),
    route(endpoints.USAGE, usage),
    route(endpoints.PRUNE, prune),
)
