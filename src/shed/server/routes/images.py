"""``/api/images``: the images of this server's store."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from functools import partial
from typing import Any

from shed.api.access import Right
from shed.config.server import configured_images
from shed.errors import UsageError
from shed.progress import Progress, Stop
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
    images, warnings = await asyncio.to_thread(_list, server)
    return json_answer({"images": images, "warnings": warnings})


async def inspect(server: Server, request: Request) -> Reply:
    """Show one image, named by ``?ref=`` or as the last segment of the path, where a slash is ``%2F``."""
    return json_answer(await asyncio.to_thread(_inspect, server, _reference(request)))


async def remove(server: Server, request: Request) -> Reply:
    """Remove the names of one image, named as in `inspect`."""
    return json_answer(await asyncio.to_thread(_remove, server, _reference(request)))


async def prune(server: Server, request: Request) -> Reply:
    """Remove what nobody needs; with ``?dry_run=true`` only say what that is."""
    return json_answer(await in_long_thread(_prune, server, flag(request, "dry_run")))


async def history(server: Server, request: Request) -> Reply:
    """Show the steps that made the image ``?ref=``."""
    return json_answer({"steps": await asyncio.to_thread(_history, server, _reference(request))})


async def tag(server: Server, request: Request) -> Reply:
    """Give an image another name."""
    return json_answer(await asyncio.to_thread(_tag, server, **_members(request, _TAG, "source", "name")))


async def trust(server: Server, request: Request) -> Reply:
    """Let the kernel and the initrd that an image brings boot here from now on."""
    return json_answer(await asyncio.to_thread(_trust, server, **_members(request, _TRUST, "ref")))


async def verify(server: Server, request: Request) -> Reply:
    """Read an image again and say what is wrong with it."""
    wanted = _members(request, _VERIFY, "ref")

    async def work(progress: Progress) -> dict[str, Any]:
        return await stoppable(lambda stop: _verify(server, wanted, progress, stop), long=True)

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
        return await stoppable(lambda stop: _push(server, wanted, progress, stop), long=True)

    return await server.workers.run(request, work)


async def pull(server: Server, request: Request) -> Reply:
    """Pull an image from a registry, as long as its client waits for it."""
    wanted = _members(request, _PULL, "docker_ref")

    async def work(progress: Progress) -> dict[str, Any]:
        return await stoppable(lambda stop: _pull(server, wanted, progress, stop), progress.left, long=True)

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


def _push(server: Server, wanted: dict[str, Any], progress: Progress, stop: Stop) -> dict[str, Any]:
    from shed.images.push import push_image  # noqa: PLC0415  a server starts faster without
    from shed.oci.store import LayoutStore  # noqa: PLC0415

    return asdict(
        push_image(LayoutStore(server.paths.images, server.settings.limits), **wanted, progress=progress, stop=stop)
    )


def _pull(server: Server, wanted: dict[str, Any], progress: Progress, stop: Stop) -> dict[str, Any]:
    from shed.images.pull import pull_image  # noqa: PLC0415  a server starts faster without
    from shed.oci.descriptor import Platform  # noqa: PLC0415
    from shed.oci.store import LayoutStore  # noqa: PLC0415

    platform = Platform.parse(wanted.pop("platform")) if "platform" in wanted else None
    reference = wanted.pop("docker_ref")
    store = LayoutStore(server.paths.images, server.settings.limits)
    most = server.settings.pull_concurrency
    return asdict(
        pull_image(store, reference, platform=platform, concurrency=most, **wanted, progress=progress, stop=stop)
    )


def _list(server: Server) -> tuple[list[dict[str, Any]], list[str]]:
    from shed.images.listing import list_images  # noqa: PLC0415  a server starts faster without
    from shed.oci.store import LayoutStore  # noqa: PLC0415
    from shed.sheds.pins import pins_and_warnings  # noqa: PLC0415

    pins, warnings = pins_and_warnings(server.paths)
    images = list_images(LayoutStore(server.paths.images), pins, configured_images(server.settings))
    return [asdict(image) for image in images], warnings


def _inspect(server: Server, reference: str) -> dict[str, Any]:
    from shed.images.listing import inspect_image  # noqa: PLC0415  a server starts faster without
    from shed.oci.store import LayoutStore  # noqa: PLC0415
    from shed.sheds.pins import pins_and_warnings  # noqa: PLC0415

    pins, _ = pins_and_warnings(server.paths)
    return inspect_image(LayoutStore(server.paths.images), reference, pins, configured_images(server.settings))


def _remove(server: Server, reference: str) -> dict[str, Any]:
    from shed.images.remove import remove_image  # noqa: PLC0415  a server starts faster without
    from shed.oci.store import LayoutStore  # noqa: PLC0415
    from shed.sheds.pins import pins  # noqa: PLC0415

    store = LayoutStore(server.paths.images)
    return asdict(remove_image(store, reference, pins(server.paths), configured_images(server.settings)))


def _prune(server: Server, dry_run: bool) -> dict[str, Any]:
    from shed.images.prune import prune  # noqa: PLC0415  a server starts faster without
    from shed.oci.store import LayoutStore  # noqa: PLC0415
    from shed.sheds.pins import pins  # noqa: PLC0415

    store = LayoutStore(server.paths.images)
    return prune(store, partial(pins, server.paths), configured_images(server.settings), dry_run=dry_run).to_wire()


def _history(server: Server, reference: str) -> list[dict[str, Any]]:
    from shed.images.history import image_history  # noqa: PLC0415  a server starts faster without
    from shed.oci.store import LayoutStore  # noqa: PLC0415

    return [asdict(step) for step in image_history(LayoutStore(server.paths.images), reference)]


def _tag(server: Server, source: str, name: str) -> dict[str, Any]:
    from shed.images.history import tag_image  # noqa: PLC0415  a server starts faster without
    from shed.oci.store import LayoutStore  # noqa: PLC0415

    return {"name": name, "digest": tag_image(LayoutStore(server.paths.images), source, name)}


def _trust(server: Server, ref: str) -> dict[str, Any]:
    from shed.images.trust import add_image  # noqa: PLC0415  a server starts faster without
    from shed.oci.store import LayoutStore  # noqa: PLC0415

    return {"digests": add_image(LayoutStore(server.paths.images), ref, f"shed image trust {ref}")}


def _verify(server: Server, wanted: dict[str, Any], progress: Progress, stop: Stop) -> dict[str, Any]:
    from shed.images.verify import verify_image  # noqa: PLC0415  a server starts faster without
    from shed.oci.store import LayoutStore  # noqa: PLC0415

    store = LayoutStore(server.paths.images)
    return verify_image(store, wanted["ref"], deep=wanted.get("deep", False), progress=progress, stop=stop).to_json()


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
