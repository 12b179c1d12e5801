"""The API: which handler answers which request, and the rules that hold for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace

from shed.api.access import Right
from shed.config.paths import Paths
from shed.config.server import Settings
from shed.errors import NotFoundError, UsageError
from shed.images.service import Images
from shed.server.audit import Audit
from shed.server.failures import explain
from shed.server.http import Answer, Events, Reply, Request, error_answer
from shed.server.ssh.front import Front
from shed.server.tokens import Tokens
from shed.server.work import Workers
from shed.sheds.manager import Manager
from shed.sheds.pins import open_images


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
Handle = Callable[[Server, Request], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Route:
    """`method` and `pattern` (segments in braces match any one segment), the right that it takes, and who answers."""

    method: str
    pattern: str
    right: Right
    handle: Handle


class App:
    """Answers requests by the table `routes`.  Every failure becomes one JSON error."""

    def __init__(self, server: Server, routes: Iterable[Route]) -> None:
        self._server = server
        self._routes = [(route.pattern.split("/")[1:], route) for route in routes]

    async def __call__(self, request: Request) -> Reply:
        """Answer `request`.  Raises nothing but cancellation."""
        action = self._server.audit.begin(request.caller, f"{request.method} /{'/'.join(request.path)}"[:_LONGEST])
        try:
            route, params = self._find(request)
            action = self._server.audit.begin(request.caller, f"{route.method} {route.pattern}", params.get("name"))
            request.caller.require(route.right, f"{route.method} {route.pattern}")
            reply = await route.handle(self._server, replace(request, params=params, action=action))
        except asyncio.CancelledError:
            action.end(_CLIENT_GONE, "CLIENT_GONE")
            raise
        except Exception as error:  # noqa: BLE001  explain() logs what is not meant for users
            told = explain(error)
            action.end(told.http_status, told.code)
            return error_answer(told)
        action.end(reply.status if isinstance(reply, Answer) else _OK if isinstance(reply, Events) else _SWITCHED)
        return reply

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
