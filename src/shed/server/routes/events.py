"""``/api/events``: what happens on this server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from shed.api import endpoints
from shed.api.access import Right
from shed.api.base import NoBody
from shed.api.eventlog import KINDS, Event, EventList, EventParams
from shed.errors import UsageError
from shed.server.app import Server, route
from shed.server.call import Call
from shed.server.http import KEEPALIVE, Events, Request, event_block
from shed.sheds.events import Follower, wanted

_GROUPS = frozenset(kind.partition(".")[0] for kind in KINDS if "." in kind)
_READ = frozenset({"shed", "egress.rules"})
"""What a caller may hear who may not use sheds: the others say what is done in them."""


async def list_events(server: Server, call: Call[EventParams, NoBody]) -> EventList | Events:
    """Show what has happened lately, and to those who ask for events also what comes."""
    asked, tail = call.params, call.params.tail
    fits = wanted(shed=asked.shed, kinds=_kinds(call))
    if not call.request.wants_events:
        return EventList(events=server.manager.events.recent(fits, tail))
    return Events(_blocks(server.manager.events.follow(fits, tail), call.request))


def _kinds(call: Call[EventParams, NoBody]) -> frozenset[str] | None:
    """Return the kinds that the caller asks for, and may have; None for all."""
    words = frozenset(word for word in (call.params.kind or "").split(",") if word)
    for word in sorted(words):
        if word not in KINDS and word not in _GROUPS:
            known = ", ".join([*sorted(_GROUPS), *KINDS])
            raise UsageError(f"{word[:80]!r} is not a kind of event", hint=f"choose from {known}")
        if word not in _READ and not word.startswith("shed."):
            call.caller.require(Right.USE, f"events of the kind {word!r}")
    return words or (None if call.caller.right >= Right.USE else _READ)


async def _blocks(follower: Follower, request: Request) -> AsyncGenerator[bytes, None]:
    """Yield what the follower hears, until its client leaves or the server ends."""
    left = asyncio.create_task(_left(request))
    left.add_done_callback(lambda _: follower.close())
    try:
        while (event := await _next(follower)) is not None:
            yield event_block(event.kind, event) if event.kind else b":\n\n"
    finally:
        follower.close()
        left.cancel()
        await asyncio.wait([left])


async def _next(follower: Follower) -> Event | None:
    """Return the next event; one without a kind after a time of silence, so that nobody in between hangs up."""
    try:
        async with asyncio.timeout(KEEPALIVE):
            return await follower.next()
    except TimeoutError:
        return Event()


async def _left(request: Request) -> None:
    assert request.left is not None
    with contextlib.suppress(ConnectionError):
        await request.left()


ROUTES = (route(endpoints.LIST_EVENTS, list_events),)
