"""``/api/images``: the images of this server's store."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from functools import partial
from typing import Any

from shed.config.server import configured_images
from shed.errors import UsageError
from shed.server.app import Route, Server
from shed.server.http import Reply, Request, flag, json_answer


async def index(server: Server, request: Request) -> Reply:
    """List all images."""
    return json_answer({"images": await asyncio.to_thread(_list, server)})


async def inspect(server: Server, request: Request) -> Reply:
    """Show one image, named by ``?ref=`` because references hold slashes."""
    return json_answer(await asyncio.to_thread(_inspect, server, _reference(request)))


async def remove(server: Server, request: Request) -> Reply:
    """Remove the names of one image, named by ``?ref=``."""
    return json_answer(await asyncio.to_thread(_remove, server, _reference(request)))


async def prune(server: Server, request: Request) -> Reply:
    """Remove what nobody needs; with ``?dry_run=true`` only say what that is."""
    return json_answer(await asyncio.to_thread(_prune, server, flag(request, "dry_run")))


def _reference(request: Request) -> str:
    reference = request.query.get("ref")
    if not reference:
        raise UsageError("which image?", hint="name it with ?ref=")
    return reference


def _list(server: Server) -> list[dict[str, Any]]:
    from shed.images.listing import list_images  # noqa: PLC0415  a server starts faster without
    from shed.oci.store import LayoutStore  # noqa: PLC0415
    from shed.sheds.pins import pins_and_warnings  # noqa: PLC0415

    pins, _ = pins_and_warnings(server.paths)
    return [asdict(image) for image in list_images(LayoutStore(server.paths.images), pins, configured_images(server.settings))]


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


ROUTES = (
    Route("GET", "/api/images", index),
    Route("GET", "/api/images/inspect", inspect),
    Route("DELETE", "/api/images", remove),
    Route("POST", "/api/images/prune", prune),
)
