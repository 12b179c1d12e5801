"""The API: which handler answers which request, and the rules that hold for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace

from shed.config.paths import Paths
from shed.config.server import Settings
from shed.errors import NotFoundError, ShedError, UsageError
from shed.server.failures import explain
from shed.server.http import Reply, Request, error_answer
from shed.server.ssh.front import Front
from shed.server.work import Workers
from shed.sheds.manager import Manager

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


class ForbiddenError(ShedError):
    """The request comes from somewhere that may not ask for this."""

    code = "FORBIDDEN"
    http_status = 403


class MethodError(UsageError):
    """The path exists, but not with this method."""

    code = "METHOD_NOT_ALLOWED"
    http_status = 405


@dataclass(frozen=True, slots=True)
class Server:
    """What the handlers work with."""

    paths: Paths
    settings: Settings
    manager: Manager
    workers: Workers = field(default_factory=Workers)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Set it to end the server; the VMs stay."""
    ssh: Front = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ssh", Front(self.paths.data, self.settings, self.manager))


Handle = Callable[[Server, Request], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Route:
    """`method` and `pattern` (segments in braces match any one segment) and who answers."""

    method: str
    pattern: str
    handle: Handle


class App:
    """Answers requests by the table `routes`.  Every failure becomes one JSON error."""

    def __init__(self, server: Server, routes: Iterable[Route]) -> None:
        self._server = server
        self._routes = [(route.pattern.split("/")[1:], route) for route in routes]

    async def __call__(self, request: Request) -> Reply:
        """Answer `request`.  Raises nothing but cancellation."""
        try:
            if not request.local:
                _check_origin(request)
            route, params = self._find(request)
            return await route.handle(self._server, replace(request, params=params))
        except Exception as error:  # noqa: BLE001  explain() logs what is not meant for users
            return error_answer(explain(error))

    def _find(self, request: Request) -> tuple[Route, dict[str, str]]:
        others = []
        for pattern, route in self._routes:
            params = _match(pattern, request.path)
            if params is None:
                continue
            if route.method == request.method:
                return route, params
            others.append(route.method)
        path = "/" + "/".join(request.path)
        if others:
            raise MethodError(f"{request.method} is not possible on {path}", hint=f"it takes {', '.join(others)}")
        raise NotFoundError(f"there is nothing at {path}", hint="is the client of another version than the server?")


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


def _check_origin(request: Request) -> None:
    """Refuse what a web page could make a browser send to the loopback port: by the page's origin, and by a rebound host name."""
    host = request.headers.get("host", "")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if name.lower() not in LOOPBACK_NAMES:
        raise ForbiddenError(f"this server is not called {host!r}", hint="use localhost or 127.0.0.1")
    if "origin" in request.headers or request.headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
        raise ForbiddenError("requests from web pages are refused", hint="use the shed command")
