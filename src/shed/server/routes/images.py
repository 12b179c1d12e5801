"""``/api/images``: the images of this server's store."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from functools import partial
from typing import Any

from shed.api.access import Right
from shed.errors import UsageError
from shed.progress import Progress
from shed.server.app import Route, Server
from shed.server.http import Reply, Request, flag, json_answer
from shed.threads import in_long_thread, stoppable

_TRUST: dict[str, type] = {"ref": str}
_TAG: dict[str, type] = {"source": str, "name": str}
_VERIFY: dict[str, type] = {"ref": str, "deep": bool}
_PUSH: dict[str, type] = {"source": str, "destination": str, "insecure": bool}
_PULL: dict[str, type] = {
    "docker_ref": str,
    "tag": str,
    "platform": str,
    "with_layers": bool,
    "insecure": bool,
    "trust_kernel": bool,
}


async def index(server: Server, request: Request) -> Reply:
    """List all images; a shed whose record cannot be read, so that nobody knows which one it needs, becomes a warning."""
    images, warnings = await asyncio.to_thread(server.images.list_all)
    return json_answer({"images": [asdict(image) for image in images], "warnings": warnings})


async def inspect(server: Server, request: Request) -> Reply:
    """Show one image, named by ``?ref=`` or as the last segment of the path, where a slash is ``%2F``."""
    return json_answer(await asyncio.to_thread(server.images.inspect, _reference(request)))


async def remove(server: Server, request: Request) -> Reply:
    """Remove the names of one image, named as in `inspect`."""
    return json_answer(asdict(await asyncio.to_thread(server.images.remove, _reference(request))))


async def prune(server: Server, request: Request) -> Reply:
    """Remove what nobody needs; with ``?dry_run=true`` only say what that is."""
    plan = await in_long_thread(server.images.prune, dry_run=flag(request, "dry_run"))
    return json_answer(plan.to_wire())


async def history(server: Server, request: Request) -> Reply:
    """Show the steps that made the image ``?ref=``."""
    steps = await asyncio.to_thread(server.images.history, _reference(request))
    return json_answer({"steps": [asdict(step) for step in steps]})


async def tag(server: Server, request: Request) -> Reply:
    """Give an image another name."""
    wanted = _members(request, _TAG, "source", "name")
    return json_answer({"name": wanted["name"], "digest": await asyncio.to_thread(server.images.tag, **wanted)})


async def trust(server: Server, request: Request) -> Reply:
    """Let the kernel and the initrd that an image brings boot here from now on."""
    ref = _members(request, _TRUST, "ref")["ref"]
    return json_answer({"digests": await asyncio.to_thread(server.images.trust, ref, f"shed image trust {ref}")})


async def verify(server: Server, request: Request) -> Reply:
    """Read an image again and say what is wrong with it."""
    wanted = _members(request, _VERIFY, "ref")
    verify_image = partial(server.images.verify, wanted["ref"], deep=wanted.get("deep", False))

    async def work(progress: Progress) -> dict[str, Any]:
        done = await stoppable(lambda stop: verify_image(progress=progress, stop=stop), long=True)
        return done.to_json()

    return await server.workers.run(request, work)


def _reference(request: Request) -> str:
    reference = request.params.get("ref") or request.query.get("ref")
    if not reference:
        raise UsageError("which image?", hint="name it with ?ref=")
    return reference


async def push(server: Server, request: Request) -> Reply:
    """Push an image to a registry."""
    wanted = _members(request, _PUSH, "source", "destination")

    async def work(progress: Progress) -> dict[str, Any]:
        push_image = partial(server.images.push, **wanted, progress=progress)
        return asdict(await stoppable(lambda stop: push_image(stop=stop), long=True))

    return await server.workers.run(request, work)


async def pull(server: Server, request: Request) -> Reply:
    """Pull an image from a registry, as long as its client waits for it."""
    wanted = _members(request, _PULL, "docker_ref")
    reference = wanted.pop("docker_ref")

    async def work(progress: Progress) -> dict[str, Any]:
        pull_image = partial(server.images.pull, reference, **wanted, progress=progress)
        return asdict(await stoppable(lambda stop: pull_image(stop=stop), progress.left, long=True))

    return await server.workers.run(request, work)


def _members(request: Request, kinds: dict[str, type], *needed: str) -> dict[str, Any]:
    """Return the members of the request's JSON object that are not null.

    Raises `UsageError` naming the one that is wrong.
    """
    body = {key: value for key, value in request.json_object().items() if value is not None}
    for key, value in body.items():
        if key not in kinds:
            raise UsageError(f"unknown member {key!r}", hint=f"known are {', '.join(kinds)}")
        if not isinstance(value, kinds[key]):
            raise UsageError(
                f"{key} must be {'text' if kinds[key] is str else 'true or false'}", hint=f"it is {value!r}"
            )
    for key in needed:
        if not body.get(key):
            raise UsageError(f"{key} is missing", hint=f"send it as the member {key!r}")
    return body


ROUTES = (
    Route("GET", "/api/images", Right.READ, index),
    Route("GET", "/api/images/inspect", Right.READ, inspect),
    Route("GET", "/api/images/inspect/{ref}", Right.READ, inspect),
    Route("GET", "/api/images/history", Right.READ, history),
    Route("POST", "/api/images/tag", Right.ADMIN, tag),
    Route("POST", "/api/images/trust", Right.ADMIN, trust),
    Route("POST", "/api/images/verify", Right.ADMIN, verify),
    Route("POST", "/api/images/push", Right.ADMIN, push),
    Route("POST", "/api/images/pull", Right.ADMIN, pull),
    Route("DELETE", "/api/images", Right.ADMIN, remove),
    Route("DELETE", "/api/images/{ref}", Right.ADMIN, remove),
    Route("POST", "/api/images/prune", Right.ADMIN, prune),
)
