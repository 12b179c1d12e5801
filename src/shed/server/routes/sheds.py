"""``/api/sheds``: sheds and their life."""

from __future__ import annotations

import asyncio
from dataclasses import fields
from typing import Any

from shed.api.access import Right
from shed.config.server import is_configured
from shed.errors import UsageError
from shed.names import MAX_NAME
from shed.progress import Progress
from shed.server.app import Route, Server
from shed.server.http import Answer, Reply, Request, Upgrade, flag, json_answer, whole
from shed.server.routes.exec import check_upgrade
from shed.sheds.create import CreateRequest
from shed.threads import in_long_thread

LOG_PROTOCOL = "shed-log"
MOST_LINES = 1_000_000_000
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,), "str | None": (str,), "int | None": (int,), "float | None": (int, float), "bool": (bool,)
}  # fmt: skip
_KIND_NAMES = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}


async def index(server: Server, request: Request) -> Reply:
    """List all sheds; what cannot be read becomes a warning."""
    sheds, warnings = await asyncio.to_thread(server.manager.list)
    return json_answer({"sheds": sheds, "warnings": warnings})


async def show(server: Server, request: Request) -> Reply:
    """Show one shed."""
    return json_answer(server.manager.get(request.params["name"]))


async def create(server: Server, request: Request) -> Reply:
    """Make a shed."""
    wanted = parse_create(request.json_object())
    if request.action is not None:
        request.action.shed = wanted.name[:MAX_NAME]
    if wanted.local_dir is not None:
        request.caller.require(Right.ADMIN, "a folder of the host")
    if wanted.trust_kernel:
        request.caller.require(Right.ADMIN, "the kernel of an image")
    if wanted.force:
        request.caller.require(Right.ADMIN, "force")
    if wanted.image is not None and not is_configured(server.settings, wanted.image):
        request.caller.require(Right.ADMIN, "an image that is neither in the store nor in the configuration")
    return await server.workers.run(request, lambda progress: server.manager.create(wanted, progress), status=201)


async def start(server: Server, request: Request) -> Reply:
    """Start a stopped shed; ``?cold=true`` boots it in any case, ``?force=true`` starts it on a host that is short of memory, too."""
    name, cold, force = request.params["name"], flag(request, "cold"), flag(request, "force")
    if force:
        request.caller.require(Right.ADMIN, "force")
    return await server.workers.run(
        request, lambda progress: server.manager.start(name, progress, cold=cold, force=force)
    )


async def stop(server: Server, request: Request) -> Reply:
    """Stop a running shed."""
    return await server.workers.run(request, lambda progress: server.manager.stop(request.params["name"], progress))


async def delete(server: Server, request: Request) -> Reply:
    """Remove a shed; ``?force=true`` ends a running one first."""
    name, force = request.params["name"], flag(request, "force")

    async def work(progress: Progress) -> dict[str, Any]:
        await server.manager.delete(name, force=force, progress=progress)
        return {"name": name, "timings": progress.finish()}

    return await server.workers.run(request, work)


async def logs(server: Server, request: Request) -> Reply:
    """Show the end of the VM's console log, with ``?tail=N`` its last N lines.

    A client that upgrades also gets what follows.
    """
    text = request.query.get("tail")
    name, lines = request.params["name"], None if text is None else whole(text, "a number of lines", 0, MOST_LINES)
    if "upgrade" not in request.headers:
        return Answer(200, server.manager.console_log(name, lines=lines), "text/plain; charset=utf-8")
    check_upgrade(request, LOG_PROTOCOL)
    return Upgrade(LOG_PROTOCOL, server.manager.follow_console(name, lines=lines), half_close=False)


async def health(server: Server, request: Request) -> Reply:
    """Ask the guest of a running shed how it is."""
    return json_answer(await server.manager.health(request.params["name"]))


async def workspace(server: Server, request: Request) -> Reply:
    """Tell what in a shed's workspace may run on this machine.

    ``?after=FOLDER`` goes on where the last answer ended.
    """
    name, after = request.params["name"], request.query.get("after")
    return json_answer(await in_long_thread(server.manager.look_at_workspace, name, after))


def parse_create(body: dict[str, Any]) -> CreateRequest:
    """Return the create that the JSON `body` asks for; null is as good as absent.

    Raises `UsageError` naming the member.
    """
    known = {field.name: str(field.type) for field in fields(CreateRequest)}
    for key, value in body.items():
        if key not in known:
            import difflib  # noqa: PLC0415  for mistakes only

            near = difflib.get_close_matches(key, known, n=1)
            raise UsageError(
                f"unknown member {key!r}",
                hint=f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}",
            )
        kind = known[key]
        if value is not None and (
            not isinstance(value, _KINDS[kind]) or isinstance(value, bool) is not (kind == "bool")
        ):
            raise UsageError(f"{key} must be {_KIND_NAMES[kind.removesuffix(' | None')]}", hint=f"it is {value!r}")
    if body.get("name") is None:
        raise UsageError("a shed needs a name", hint="send it as the member 'name'")
    return CreateRequest(**{key: value for key, value in body.items() if value is not None})


ROUTES = (
    Route("GET", "/api/sheds", Right.READ, index),
    Route("POST", "/api/sheds", Right.USE, create),
    Route("GET", "/api/sheds/{name}", Right.READ, show),
    Route("DELETE", "/api/sheds/{name}", Right.USE, delete),
    Route("POST", "/api/sheds/{name}/start", Right.USE, start),
    Route("POST", "/api/sheds/{name}/stop", Right.USE, stop),
    Route("GET", "/api/sheds/{name}/logs", Right.USE, logs),
    Route("GET", "/api/sheds/{name}/health", Right.READ, health),
    Route("GET", "/api/sheds/{name}/workspace", Right.USE, workspace),
)
