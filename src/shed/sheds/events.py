"""The one place where what happens on a server is told, and where those who follow it hear of it.

All of it runs in the server's event loop.  Nobody who does not listen holds anybody up: each follower has a queue that
is bounded, and is told how many events it has missed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

from shed.api.egress import Decision
from shed.api.eventlog import KEPT, ON_REQUEST, Event

MOST_WAITING = 1000
"""Events that wait for one follower."""
MOST_MESSAGE = 1000
"""Characters of a message."""
Wanted = Callable[[Event], bool]


def wanted(*, shed: str | None, kinds: frozenset[str] | None) -> Wanted:
    """Return what says whether an event is about `shed`, or about all, and of one of `kinds` or their groups.

    None: all of them.
    """

    def fits(event: Event) -> bool:
        if shed is not None and event.shed not in {shed, ""}:
            return False
        if event.kind in ON_REQUEST or kinds is None:
            return event.kind not in ON_REQUEST if kinds is None else event.kind in kinds
        return event.kind in kinds or event.kind.partition(".")[0] in kinds

    return fits


class Events:
    """The events of one server."""

    def __init__(self) -> None:
        self._recent: deque[Event] = deque(maxlen=KEPT)
        self._followers: set[Follower] = set()

    def tell(
        self,
        kind: str,
        shed: str = "",
        message: str = "",
        *,
        count: int = 0,
        decision: Decision | None = None,
    ) -> None:
        """Tell all followers that something has happened now."""
        message = message[:MOST_MESSAGE]
        event = Event(time=_now(), kind=kind, shed=shed, message=message, count=count, decision=decision)
        if kind not in ON_REQUEST:
            self._recent.append(event)
        for follower in self._followers:
            follower.put(event)

    def recent(self, fits: Wanted, tail: int | None = None) -> list[Event]:
        """Return the events that are remembered, the last `tail` that fit."""
        found = [event for event in self._recent if fits(event)]
        return found if tail is None else found[len(found) - min(tail, len(found)) :]

    def follow(self, fits: Wanted, tail: int | None = None) -> Follower:
        """Return a follower, which has the events of `recent` already, and gets what comes until it is closed."""
        follower = Follower(fits, self.recent(fits, tail), self._followers.discard)
        self._followers.add(follower)
        return follower

    def close(self) -> None:
        """End what all followers hear."""
        for follower in list(self._followers):
            follower.close()


class Follower:
    """One who hears of events as they happen."""

    def __init__(self, fits: Wanted, before: list[Event], forget: Callable[[Follower], None]) -> None:
        self._fits = fits
        self._waiting = deque(before)
        self._missed = 0
        self._forget = forget
        self._news = asyncio.Event()
        self._closed = False

    def put(self, event: Event) -> None:
        """Take an event that fits, or count it as missed."""
        if not self._fits(event):
            return
        if len(self._waiting) < MOST_WAITING:
            self._waiting.append(event)
        else:
            self._missed += 1
        self._news.set()

    async def next(self) -> Event | None:
        """Return the next event; None when there are no more."""
        while not (self._waiting or self._missed or self._closed):
            self._news.clear()
            await self._news.wait()
        if self._waiting:
            return self._waiting.popleft()
        missed, self._missed = self._missed, 0
        return Event(time=_now(), kind="dropped", count=missed) if missed else None

    def close(self) -> None:
        """Hear no more; what waits is still there."""
        self._closed = True
        self._news.set()
        self._forget(self)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
