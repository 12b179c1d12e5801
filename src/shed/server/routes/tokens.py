"""``/api/tokens``: who may use the TCP port."""

from __future__ import annotations

import asyncio

from shed.api.access import Right
from shed.errors import UsageError
from shed.server.app import Route, Server
from shed.server.http import Reply, Request, json_answer

_MEMBERS = ("name", "right", "sha256", "expires_in")
_LONGEST = 10 * 365 * 86400.0
"""Seconds: longer than this is for ever."""


async def index(server: Server, request: Request) -> Reply:
    """List the tokens, without their secrets."""
    return json_answer({"tokens": [token.to_wire() for token in server.tokens.all()]})


async def create(server: Server, request: Request) -> Reply:
    """Keep a token: its secret stays with the client, which sends the hash."""
    body = {key: value for key, value in request.json_object().items() if value is not None}
    for key, value in body.items():
        if key not in _MEMBERS:
            raise UsageError(f"unknown member {key!r}", hint=f"known are {', '.join(_MEMBERS)}")
        if key != "expires_in" and not isinstance(value, str):
            raise UsageError(f"{key} must be text", hint=f"it is {value!r}")
    lifetime = body.get("expires_in")
    if lifetime is not None and (
        not isinstance(lifetime, int | float) or isinstance(lifetime, bool) or not 0 < lifetime <= _LONGEST
    ):
        raise UsageError(
            "expires_in must be a number of seconds, ten years at most", hint="leave it out for a token without an end"
        )
    right = Right.parse(body.get("right", Right.USE.word))
    token = await asyncio.to_thread(server.tokens.add, body.get("name", ""), right, body.get("sha256", ""), lifetime)
    return json_answer(token.to_wire(), status=201)


async def revoke(server: Server, request: Request) -> Reply:
    """Have a token be nobody's, and hang up on whoever used it."""
    name = request.params["token"]
    await asyncio.to_thread(server.tokens.remove, name)
    return json_answer({"name": name})


ROUTES = (
    Route("GET", "/api/tokens", Right.ADMIN, index),
    Route("POST", "/api/tokens", Right.ADMIN, create),
    Route("DELETE", "/api/tokens/{token}", Right.ADMIN, revoke),
)
