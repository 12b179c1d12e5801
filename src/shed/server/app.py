"""The API: which handler answers which request, and the rules that hold for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from shed.api.base import API_VERSION, VERSION_HEADER
from shed.api.decoding import decode
from shed.api.endpoint import A, B, Endpoint, P
from shed.config.paths import Paths
from shed.config.server import Settings
from shed.errors import NotFoundError, UsageError
from shed.images.service import Images
from shed.server.audit import Audit
from shed.server.call import Call, Work
from shed.server.failures import explain
from shed.server.http import Answer, Events, Reply, Request, Upgrade, error_answer, json_answer
from shed.server.ssh.front import Front
from shed.server.tokens import Tokens
from shed.server.work import Workers
from shed.sheds.manager import Manager
from shed.sheds.pins import open_images
from shed.untrusted import number, told


@dataclass(frozen=True, slots=True)
class Server:
    """What the handlers work with."""

    paths: Paths
    settings: Settings
    manager: Manager
    workers: Workers = field(default_factory=Workers)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Set it to end the server; the VMs stay."""
    images: Images = field(init=False)
    ssh: Front = field(init=False)
    tokens: Tokens = field(init=False)
    audit: Audit = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", open_images(self.paths, self.settings))
        object.__setattr__(self, "audit", Audit(self.paths.logs))
        object.__setattr__(self, "ssh", Front(self.paths.data, self.settings, self.manager, self.audit))
        object.__setattr__(self, "tokens", Tokens(self.paths.data))


_OK, _SWITCHED, _CLIENT_GONE = 200, 101, 499
_LONGEST = 200
"""Characters of an unknown path that the audit log shows."""
_MOST_VERSION = 1 << 20
Handle = Callable[[Server, Call[P, B]], Awaitable[A | Work[A] | Reply]]
"""Answers a call: with the answer of its endpoint, with work that leads to it, or with a whole reply."""


@dataclass(frozen=True, slots=True)
class Route:
    """Who answers an endpoint."""

    endpoint: Endpoint[Any, Any, Any]
    handle: Handle[Any, Any, Any]


def route(endpoint: Endpoint[P, B, A], handle: Handle[P, B, A]) -> Route:
    """Return the route that has `handle` answer `endpoint`."""
    return Route(endpoint, handle)


class App:
    """Answers requests by the table `routes`.  Every failure becomes one JSON error."""

    def __init__(self, server: Server, routes: Iterable[Route]) -> None:
        self._server = server
        self._routes = [
            (path, path.split("/")[1:], route)
            for route in routes
            for path in (route.endpoint.path, route.endpoint.old_path)
            if path
        ]

    async def __call__(self, request: Request) -> Reply:
        """Answer `request`.  Raises nothing but cancellation."""
        action = self._server.audit.begin(request.caller, f"{request.method} /{'/'.join(request.path)}"[:_LONGEST])
        try:
            path, route, found = self._find(request)
            endpoint = route.endpoint
            what = f"{endpoint.method} {path}"
            action = self._server.audit.begin(request.caller, what, found.get("name"))
            request.caller.require(endpoint.right, what)
            _check_version(request)
            params, body = decode(endpoint, found, request.query, request.body)
            call = Call(endpoint, request, params, body, action)
            reply = await self._reply(call, await route.handle(self._server, call))
        except asyncio.CancelledError:
            action.end(_CLIENT_GONE, "CLIENT_GONE")
            raise
        except Exception as error:  # noqa: BLE001  explain() logs what is not meant for users
            told = explain(error)
            action.end(told.http_status, told.code)
            return error_answer(told)
        action.end(reply.status if isinstance(reply, Answer) else _OK if isinstance(reply, Events) else _SWITCHED)
        return reply

    async def _reply(self, call: Call[Any, Any], outcome: object) -> Reply:
        if isinstance(outcome, Work):
            return await self._server.workers.run(call, outcome)
        if isinstance(outcome, Answer | Events | Upgrade):
            return outcome
        return json_answer(outcome, status=call.endpoint.status)

    def _find(self, request: Request) -> tuple[str, Route, dict[str, str]]:
        """Return the path of an endpoint, its route, and what the request has for what is in braces."""
        others = []
        for path, pattern, route in self._routes:
            params = _match(pattern, request.path)
            if params is None:
                continue
            if route.endpoint.method == request.method:
                return path, route, params
            others.append(route.endpoint.method)
        shown = "/" + "/".join(request.path)
        if others:
            hint = f"it takes {', '.join(others)}"
            raise UsageError(f"{request.method} is not possible on {shown}", code="METHOD_NOT_ALLOWED", hint=hint)
        raise NotFoundError(f"there is nothing at {shown}", hint="is the client of another version than the server?")


def _check_version(request: Request) -> None:
    """Raise `UsageError` (API_TOO_OLD) when the client needs a newer contract, or when what it says is no version."""
    asked = request.headers.get(VERSION_HEADER.lower())
    if asked is None:
        return
    version = number(asked, 1, _MOST_VERSION)
    if version is None:
        raise UsageError(
            f"{told(asked, 40)!r} is not a version of the API", hint=f"send {VERSION_HEADER}: {API_VERSION}"
        )
    if version > API_VERSION:
        raise UsageError(
            f"the client needs version {version} of the API, this server has {API_VERSION}",
            code="API_TOO_OLD",
            hint="update the server",
        )


def _match(pattern: list[str], path: tuple[str, ...]) -> dict[str, str] | None:
    if len(pattern) != len(path):
        return None
    params = {}
    for expected, found in zip(pattern, path, strict=True):
        if expected.startswith("{"):
            params[expected[1:-1]] = found
        elif expected != found:
            return None
    return params
