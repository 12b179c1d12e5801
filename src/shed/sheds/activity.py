"""How long a shed has been idle, by what the host sees of it: a guest is not asked, for it may say anything.

It is in use while this server carries a stream into it (a command, a session, a connection to one of its ports), and
while it has a connection that leads out at two looks in a row.  What it does by itself counts by the processor: all
that its VM has had in its whole time, so a job that is short and rare does not count.  It is compared with the
time in which the VM did not wait for a processor: so a shed cannot have a neighbour look idle.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable

from shed.backends.base import Stream
from shed.sheds.load import Threads

SHARE = 0.05
"""Of one processor, that the VM of an idle shed takes at most."""
LOOKS = 30
"""How often a shed is looked at in its time."""


class Idleness:
    """One shed, which is idle after `limit` seconds without use; times are of one clock that is never set."""

    def __init__(self, limit: float, now: float) -> None:
        self.limit = limit
        self._used = self._looked = now
        self._had: deque[tuple[float, float, float]] = deque()
        """Until when, and the seconds that its VM ran and waited for a processor; in its whole time."""
        self._threads: Threads | None = None
        self._had_flows = False

    def use(self, now: float) -> None:
        """Take note that somebody uses it."""
        self._used = now

    def is_due(self, now: float) -> bool:
        """Say whether it is to be looked at again."""
        return self._threads is None or now - self._looked >= self.limit / (LOOKS + 1)

    def look(self, now: float, threads: Threads, *, flows: bool) -> None:
        """Take note of what the threads of its VM have done, and whether it has connections that lead out."""
        if self._threads is not None:
            self._had.append((now, *between(self._threads, threads, now - self._looked)))
        while self._had and self._had[0][0] <= now - self.limit:
            self._had.popleft()
        if flows and self._had_flows:
            self._used = now
        self._threads, self._looked, self._had_flows = threads, now, flows

    def left(self, now: float) -> float:
        """Return how many seconds are left until it has been idle for its time, when nothing comes in between."""
        since, all_ran, all_waited = self._used, sum(had[1] for had in self._had), sum(had[2] for had in self._had)
        for until, ran, waited in self._had:
            if all_ran <= SHARE * (self.limit - all_waited):
                break
            since, all_ran, all_waited = max(since, until), all_ran - ran, all_waited - waited
        return since + self.limit - now


def between(before: Threads, after: Threads, seconds: float) -> tuple[float, float]:
    """Return for how many of the seconds all threads together ran, and the one waited that had to wait most."""
    ran = waited = 0.0
    for thread, (ran_then, waited_then) in after.items():
        ran_before, waited_before = before.get(thread, (0.0, 0.0))
        ran += max(ran_then - ran_before, 0.0)
        waited = max(waited, waited_then - waited_before)
    return ran, min(waited, seconds)


class Use:
    """The streams that one server carries into sheds, and the sheds of which somebody wants to know."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.watched: dict[str, Idleness] = {}
        self._open: Counter[str] = Counter()

    def is_open(self, name: str) -> bool:
        """Say whether there is a stream into a shed, or one is about to be."""
        return name in self._open

    def begin(self, name: str) -> None:
        """Count a stream, from before it is asked for: a shed is not suspended meanwhile."""
        self._open[name] += 1

    def end(self, name: str) -> None:
        """Count it no more."""
        self._open[name] -= 1
        if not self._open[name]:
            del self._open[name]
        if (idleness := self.watched.get(name)) is not None:
            idleness.use(self.clock())


class Counted:
    """A stream that calls `ended` once, when it is closed."""

    def __init__(self, stream: Stream, ended: Callable[[], None]) -> None:
        self.read = stream.read
        self.write = stream.write
        self.write_eof = stream.write_eof
        self._stream = stream
        self._ended: Callable[[], None] | None = ended

    def close(self) -> None:
        """See `Stream`."""
        self._stream.close()
        if self._ended is not None:
            self._ended()
            self._ended = None
