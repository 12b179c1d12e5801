"""How an endpoint is described: what it takes, what it answers, and the right that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from msgspec import Struct

from shed.api.access import Right
from shed.api.base import NoBody

P = TypeVar("P", bound=Struct)
B = TypeVar("B", bound=Struct)
A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Old:
    """A spelling that earlier clients, or those of the reference, use: it is understood, and means `member`."""

    place: Literal["path", "query", "body"]
    name: str
    member: str


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[P, B, A]):
    """One request that the server answers."""

    name: str
    """For programs: the ``operationId``."""
    method: Literal["GET", "POST", "DELETE"]
    path: str
    """Segments in braces are members of `params`."""
    right: Right
    """What the caller must have; a handler may ask for more."""
    params: type[P]
    """What its path and its query say."""
    body: type[B]
    answer: type[A]
    """The JSON of a success, also of the event ``complete``; ``str`` is text, ``bytes`` an upgrade only."""
    summary: str
    status: int = 200
    other_statuses: tuple[int, ...] = ()
    """Of a success, too."""
    events: bool = False
    """Whether it answers as server-sent events when it is asked to."""
    stream: type[Any] | None = None
    """Of what it sends, without end, as server-sent events when it is asked to: each is called by its `kind`."""
    upgrade: str = ""
    """The protocol that it goes on with when the client asks for it: a key of `shed.api.upgrades.UPGRADES`."""
    old_path: str = ""
    """Another path, of earlier clients."""
    old: tuple[Old, ...] = ()

    @property
    def old_names(self) -> dict[tuple[str, str], str]:
        """Return which member an old spelling means, by its place and name."""
        return {(old.place, old.name): old.member for old in self.old}


def get(  # noqa: PLR0917  a row of the table
    name: str, path: str, right: Right, params: type[P], answer: type[A], summary: str, **more: Any
) -> Endpoint[P, NoBody, A]:
    """Return an endpoint that is asked by GET."""
    return Endpoint(name, "GET", path, right, params, NoBody, answer, summary, **more)


def delete(  # noqa: PLR0917
    name: str, path: str, right: Right, params: type[P], answer: type[A], summary: str, **more: Any
) -> Endpoint[P, NoBody, A]:
    """Return an endpoint that is asked by DELETE."""
    return Endpoint(name, "DELETE", path, right, params, NoBody, answer, summary, **more)


def post(  # noqa: PLR0917
    name: str, path: str, right: Right, params: type[P], body: type[B], answer: type[A], summary: str, **more: Any
) -> Endpoint[P, B, A]:
    """Return an endpoint that is asked by POST."""
    return Endpoint(name, "POST", path, right, params, body, answer, summary, **more)
