"""``/api/images``: the images of this server's store."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from shed.errors import UsageError
from shed.server.app import Route, Server
from shed.server.http import Reply, Request, json_answer


async def index(server: Server, request: Request) -> Reply:
    """List all images."""
    return json_answer({"images": await asyncio.to_thread(_list, server)})


async def inspect(server: Server, request: Request) -> Reply:
    """Show one image, named by ``?ref=`` because references hold slashes."""
    reference = request.query.get("ref")
    if not reference:
        raise UsageError("which image?", hint="name it with ?ref=")
    return json_answer(await asyncio.to_thread(_inspect, server, reference))


def _list(server: Server) -> list[dict[str, Any]]:
    from shed.images.listing import list_images  # noqa: PLC0415  a server starts faster without
    from shed.oci.store import LayoutStore  # noqa: PLC0415

    return [asdict(image) for image in list_images(LayoutStore(server.paths.images))]


def _inspect(server: Server, reference: str) -> dict[str, Any]:
    from shed.images.listing import inspect_image  # noqa: PLC0415  a server starts faster without
    from shed.oci.store import LayoutStore  # noqa: PLC0415

    return inspect_image(LayoutStore(server.paths.images), reference)


ROUTES = (Route("GET", "/api/images", index), Route("GET", "/api/images/inspect", inspect))
