"""The folder in a shed, as its program tells it: bounded, checked, and never believed beyond that."""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from shed.client.copying import CopyError
from shed.client.mirroring import MOST_ENTRIES
from shed.client.twoway.channel import Channel
from shed.replica import wire
from shed.replica.entry import ChangedError, Entry, decoded
from shed.replica.folder import MOST_DEPTH
from shed.sizes import format_size
from shed.untrusted import told

LONGEST_PATH, LONGEST_NAME, LONGEST_LINK = 3_000, 255, 4_095
"""Bytes."""
MOST_LISTED = 128 << 20
"""Bytes of a listing."""
_LONGEST_HELLO = 1_000
_READ = 1 << 18
_PATIENCE = 300_000
"""Milliseconds in which nothing at all may happen."""
_MOST_WAITING, _MOST_WAITING_BYTES = 64, 24 * 1024
"""Answers that may be due while more is asked, and the bytes of those questions: all of that fits into the pipes, so
that neither side waits for the other to read.
"""


@dataclass(slots=True)
class Result:
    """What became of a request: `entry` is None for one that tells none."""

    entry: Entry | None = None
    settled: bool = False
    digest: bytes = b""


@dataclass(slots=True)
class News:
    """Paths at which something has changed, all for None; and what is there, where that was told."""

    paths: list[str] | None
    entries: list[tuple[str, Entry]] | None = None


class FailedError(Exception):
    """The shed could not do it; a sentence."""


Then = Callable[[Result | Exception], None]
"""Gets the result, a `ChangedError` or a `FailedError`."""
Hear = Callable[[bytes], None]


class Remote:
    """Asks the program at the other end of `channel`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._frames = wire.Frames()
        self._waiting: deque[tuple[Then, Hear | None, int]] = deque()
        self._bytes = 0
        self._awaits_news = False
        self.news: list[News] = []
        """What has come of them."""

    @property
    def fd(self) -> int:
        """What can be read when something comes."""
        return self._channel.reading

    def hello(self, folder: str, key: str, patterns: Iterable[str], *, make: bool) -> tuple[list[str], str]:
        """Begin; return the tokens that it has of us, and the mark of its folder.  Raises `CopyError`."""
        self._send(wire.frame(wire.HELLO, wire.fields(folder, key, b"1" if make else b"", *patterns)))
        kind, payload = self._frame()
        if kind == wire.RESULT:
            raise CopyError(f"the folder {told(folder)} in the shed: {told(payload[1:].decode(errors='replace'))}")
        words = payload.split(b"\0")
        if kind != wire.HELLO or len(words) != 3 or len(payload) > _LONGEST_HELLO:
            self._lies()
        *tokens, mark = (word.decode("ascii", "replace") for word in words)
        return list(filter(None, tokens)), mark

    def start_look(self, paths: Iterable[str] = ()) -> None:
        """Ask what is at `paths` and below, by default all; `finish_look` returns it."""
        self.finish()
        self._send(wire.frame(wire.LOOK, wire.fields(*paths)))

    def finish_look(self) -> list[tuple[str, Entry]]:
        """Return what was asked for, folders before what is in them.  Raises `CopyError`."""
        found: list[tuple[str, Entry]] = []
        total = 0
        while True:
            kind, payload = self._frame()
            if kind == wire.END:
                if payload:
                    raise CopyError(f"the shed cannot read its folder: {told(payload.decode(errors='replace'))}")
                return found
            if kind != wire.ENTRIES or not payload:
                self._lies()
            total += len(payload)
            if total > MOST_LISTED:
                raise CopyError(f"the shed lists more than {format_size(MOST_LISTED)}", hint="exclude some")
            found += self._entries(payload)
            if len(found) > MOST_ENTRIES:
                raise CopyError(f"the shed has more than {MOST_ENTRIES:,} files there", hint="exclude some")

    def look(self, paths: list[str]) -> list[tuple[str, Entry]]:
        """Return what is at some paths and below."""
        self.start_look(paths)
        return self.finish_look()

    def ask_news(self) -> None:
        """Have it tell in `news`, once, when something changes."""
        if not self._awaits_news:
            self._awaits_news = True
            self._send(wire.frame(wire.NEWS))

    def request(self, kind: int, payload: bytes, then: Then, *, hear: Hear | None = None) -> None:
        """Ask for something; `then` gets what became of it, and `hear` the content that comes before that."""
        size = len(payload) if hear is not None else 0
        while self._waiting and (len(self._waiting) >= _MOST_WAITING or self._bytes + size > _MOST_WAITING_BYTES):
            self._take_answer()
        if self._waiting and (self._waiting[-1][1] is None) != (hear is None):
            self.finish()  # content on both ways at once could have each wait for the other
        self._waiting.append((then, hear, size))
        self._bytes += size
        self._send(wire.frame(kind, payload))

    def more(self, kind: int, payload: bytes = b"") -> None:
        """Send what belongs to the last request."""
        self._send(wire.frame(kind, payload))

    def finish(self) -> None:
        """Take all answers that are due."""
        while self._waiting:
            self._take_answer()

    def hear_news(self, *, read: bool) -> None:
        """Take the news that have come, with nothing else asked for; `read` says that there is something to read."""
        if read:
            data = os.read(self._channel.reading, _READ)
            if not data:
                raise self._channel.why()
            self._frames.feed(data)
        while (found := self._next()) is not None:
            self._unasked(*found)

    def _take_answer(self) -> None:
        then, hear, size = self._waiting[0]
        kind, payload = self._frame()
        if kind == wire.DATA and hear is not None and payload:
            hear(payload)
            return
        if kind != wire.RESULT:
            self._lies()
        self._waiting.popleft()
        self._bytes -= size
        then(self._result(payload))

    def _result(self, payload: bytes) -> Result | Exception:
        if payload == b"~":
            return ChangedError()
        if payload.startswith(b"!"):
            return FailedError(told(payload[1:].decode(errors="replace")))
        if payload == b"+":
            return Result()
        try:
            if payload[:1] != b"+" or payload[1:2] not in (b"0", b"1"):
                raise ValueError
            words = payload[2:].split(b" ")
            digest = bytes.fromhex(words[6].decode()) if len(words) > 6 else b""
            return Result(decoded(b" ".join(words[:6])), payload[1:2] == b"1", digest)
        except ValueError:
            self._lies()

    def _entries(self, payload: bytes) -> Iterator[tuple[str, Entry]]:
        words = payload.split(b"\0")
        if words.pop() or len(words) % 3:
            self._lies()
        for at in range(0, len(words), 3):
            try:
                path = self._path(words[at + 1])
                if len(words[at + 2]) > LONGEST_LINK:
                    raise ValueError("no link")
                yield path, decoded(words[at], os.fsdecode(words[at + 2]))
            except ValueError:
                self._lies()

    def _path(self, word: bytes) -> str:
        parts = word.split(b"/")
        if (
            len(word) > LONGEST_PATH
            or len(parts) > MOST_DEPTH
            or any(part in (b"", b".", b"..") or len(part) > LONGEST_NAME for part in parts)
        ):
            raise ValueError("no path")
        return os.fsdecode(word)

    def _frame(self) -> tuple[int, bytes]:
        """Return the next frame that was asked for."""
        while True:
            while (found := self._next()) is not None:
                if found[0] != wire.NEWS:
                    return found
                self._unasked(*found)
                # What is still under way may change what they tell: that is to be asked for anew.
                self.news[-1].entries = None
            poll = select.poll()
            poll.register(self._channel.reading, select.POLLIN)
            if not poll.poll(_PATIENCE):
                raise CopyError("the shed does not answer any more", hint="see: shed stats, shed logs")
            data = os.read(self._channel.reading, _READ)
            if not data:
                raise self._channel.why()
            self._frames.feed(data)

    def _next(self) -> tuple[int, bytes] | None:
        try:
            return self._frames.next()
        except wire.WireError:
            self._lies()

    def _unasked(self, kind: int, payload: bytes) -> None:
        if kind == wire.END:
            raise CopyError(
                f"the shed {told(payload.decode(errors='replace'))}",
                hint="it may need more, in the shed: sudo sysctl fs.inotify.max_user_watches=1048576",
            )
        if kind != wire.NEWS or not self._awaits_news or not 0 < len(payload) <= wire.MOST_NEWS:
            self._lies()
        self._awaits_news = False
        try:
            if payload[:1] == b"0":
                self.news.append(News(None))
            elif payload[:1] == b"1":
                self.news.append(News([self._path(word) for word in payload[1:].split(b"\0")]))
            else:
                paths, _, records = payload[1:].partition(b"\0\0")
                self.news.append(News([self._path(word) for word in paths.split(b"\0")], list(self._entries(records))))
        except ValueError:
            self._lies()

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        poll = select.poll()
        poll.register(self._channel.writing, select.POLLOUT)
        try:
            while view:
                if not poll.poll(_PATIENCE):
                    raise CopyError("the shed takes nothing any more", hint="see: shed stats, shed logs")
                view = view[os.write(self._channel.writing, view[: select.PIPE_BUF]) :]
        except BrokenPipeError:
            raise self._channel.why() from None

    @staticmethod
    def _lies() -> NoReturn:
        raise CopyError("the shed does not say what it has there")
