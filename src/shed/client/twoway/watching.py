"""Keeping folders alike as they change, until somebody ends it."""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable

from shed.client.copying import CopyError
from shed.client.twoway.carrying import Outcome
from shed.client.twoway.channel import Channel
from shed.client.twoway.pair import Pair
from shed.client.twoway.reconcile import Plan
from shed.client.twoway.remote import News, Remote
from shed.replica import news as replica_news

_QUIET, _SAVED_AFTER = 2.0, 10.0
"""Seconds in which nothing happens until what was done is put on both disks and into the state; at most until then."""
_AGAIN_AFTER, _LONGEST_AGAIN = 0.05, 2.0
"""Seconds until the next look at what changed while it was carried."""
_MOST_AGAIN = 10
"""Such looks of one that does not watch."""

Told = Callable[[Plan, Outcome], None]


class Watch:
    """Keeps `pair` alike by the program at the end of `channel`; `told` hears of what was done.

    It ends when the descriptor `stop` can be read.
    """

    def __init__(self, pair: Pair, channel: Channel, told: Told, stop: int) -> None:
        self._pair = pair
        pair.hasty = True
        self._remote = Remote(channel)
        self._told = told
        self._stop = stop
        self._again: set[str] = set()
        self._pause = _AGAIN_AFTER
        self._unsaved: float | None = None
        """When to save."""
        self._first = 0.0
        """When the first was done of what is to be saved."""

    def run(self, ready: Callable[[], None]) -> None:
        """Make both alike, then what changes, until it is to end; `ready` is called in between.

        Raises `CopyError` and what the channel's `why` returns.
        """
        with self._pair.begin(self._remote), self._news() as news:
            self._all()
            ready()
            while self._wait(news):
                self._turn(news)
            self._pair.save(self._remote)

    def _news(self) -> contextlib.closing[replica_news.News]:
        self._remote.ask_news()
        try:
            return contextlib.closing(replica_news.News(self._pair.here))
        except OSError as error:
            raise self._unwatched(error) from None

    def _unwatched(self, error: OSError) -> CopyError:
        return CopyError(
            f"cannot watch the folders of {self._pair.rule.source}: {error.strerror}",
            hint="allow more: sudo sysctl fs.inotify.max_user_watches=1048576",
        )

    def _all(self) -> None:
        self._pair.refresh(self._remote)
        self._cycle({""})

    def _wait(self, news: replica_news.News) -> bool:
        """Wait until there is something to do, and return True, or until it is to end."""
        self._remote.hear_news(read=False)
        waits = [wait for wait in (news.wait(), self._pause if self._again else None) if wait is not None]
        if self._unsaved is not None:
            waits.append(max(0.0, self._unsaved - time.monotonic()))
        poll = select.poll()
        poll.register(news.fd, select.POLLIN)
        poll.register(self._remote.fd, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(0 if self._remote.news else min(waits) * 1000 if waits else None)}
        if self._remote.fd in ready:
            self._remote.hear_news(read=True)
        return self._stop not in ready

    def _turn(self, news: replica_news.News) -> None:
        try:
            paths = news.take()
        except OSError as error:
            raise self._unwatched(error) from None
        there, self._remote.news = self._remote.news, []
        again, self._again = self._again, set()
        if paths is None or any(each.paths is None for each in there):
            self._remote.ask_news()
            self._all()
        else:
            changed = {*paths, *again}
            for path in changed:
                self._pair.refresh_here(path)
            for each in [*there, News(sorted(again))]:
                self._pair.refresh_there(self._remote, each)
                changed.update(each.paths or ())
            if there:
                self._remote.ask_news()
            if changed:
                self._cycle(changed)
        if self._unsaved is not None and time.monotonic() >= self._unsaved:
            self._unsaved, self._first = None, 0.0
            self._pair.save(self._remote)

    def _cycle(self, paths: set[str]) -> None:
        plan, outcome = self._pair.cycle(self._remote, paths)
        self._again = outcome.again
        self._pause = min(2 * self._pause, _LONGEST_AGAIN) if outcome.again else _AGAIN_AFTER
        now = time.monotonic()
        self._first = self._first or now
        self._unsaved = min(self._first + _SAVED_AFTER, now + _QUIET)
        self._told(plan, outcome)


def once(pair: Pair, channel: Channel, *, dry: bool) -> tuple[Plan, Outcome]:
    """Make both alike; with `dry` only say what is to be done.  Raises `CopyError`, `StorageError`."""
    remote = Remote(channel)
    with pair.begin(remote, dry=dry):
        pair.refresh(remote)
        plan, outcome = pair.cycle(remote, dry=dry)
        for _ in range(_MOST_AGAIN):
            if not outcome.again:
                break
            time.sleep(_AGAIN_AFTER)
            pair.refresh(remote)
            outcome.add(pair.cycle(remote)[1])
        if not dry:
            pair.save(remote)
    return plan, outcome
