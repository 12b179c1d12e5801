"""One request as its handler gets it, decoded, and what a handler may return."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from shed.api.endpoint import A, B, Endpoint, P
from shed.errors import UsageError
from shed.progress import Progress
from shed.server.audit import Action
from shed.server.caller import Caller
from shed.server.http import Request

S = TypeVar("S", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Call(Generic[P, B]):
    """A request to `endpoint`, with the parameters and the body that the contract gives it."""

    endpoint: Endpoint[P, B, Any]
    request: Request
    params: P
    body: B
    action: Action
    """What the audit log will say of it."""

    @property
    def caller(self) -> Caller:
        """Who asks."""
        return self.request.caller

    def upgrades(self) -> bool:
        """Return whether the client asks to go on with the endpoint's protocol.

        Raises `UsageError` (UPGRADE_REQUIRED) when it asks for another one, or must ask.
        """
        headers = self.request.headers
        if "upgrade" not in headers and self.endpoint.answer is not bytes:
            return False
        asked = [word.strip().lower() for word in headers.get("connection", "").split(",")]
        protocol = self.endpoint.upgrade
        if "upgrade" not in asked or headers.get("upgrade", "").lower() != protocol:
            hint = f"send `Connection: Upgrade` and `Upgrade: {protocol}`"
            raise UsageError(f"this path speaks {protocol} alone", code="UPGRADE_REQUIRED", hint=hint)
        return True


@dataclass(frozen=True, slots=True)
class Work(Generic[A]):
    """Long work that a request asks for: see `shed.server.work`."""

    run: Callable[[Progress], Awaitable[A]]
    leave: Callable[[], Awaitable[None]] | None = None
    """Removes what has come of it, once its client has left; without it that stays."""


def answer(kind: type[S], value: object) -> S:
    """Return the answer that `value`, a dictionary or an object with the same members, makes."""
    return msgspec.convert(value, kind, from_attributes=True)
