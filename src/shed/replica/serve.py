"""Keeps a folder in a guest for a client, which speaks `wire` by standard input and output."""

from __future__ import annotations

import os
import select

from shed.replica import wire
from shed.replica.entry import FILE, ChangedError, Entry, decoded
from shed.replica.folder import Folder
from shed.replica.news import News

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shed.replica.files import Incoming

_ENTRIES = 32 * 1024
"""Bytes of one frame of entries."""
_MOST_KNOWN = 100_000
_STATE = "~/.local/state/shed-sync"


class Server:
    """One session."""

    def __init__(self) -> None:
        self._frames = wire.Frames()
        self._folder = Folder("/", lambda path: False)
        self._tokens = ""
        self._clean = False
        self._incoming: Incoming | None = None
        self._arriving = ""
        self._failed = b""
        """Why the file that comes is not taken."""
        self._news: News | None = None
        self._wanted = False
        """Whether the client waits for news."""
        self._known: dict[str, tuple[int, ...]] = {}
        """The marks of what the client has put here: no news to it."""
        self._does: dict[int, Callable[[list[bytes]], None]] = {
            wire.HELLO: self._hello,
            wire.LOOK: self._look,
            wire.DIGESTS: self._digests,
            wire.GET: self._get,
            wire.PUT: self._put,
            wire.COMMIT: self._commit,
            wire.ABORT: self._abort,
            wire.LINK: self._link,
            wire.MAKE: self._make,
            wire.REMOVE: self._remove,
            wire.MOVE: self._move,
            wire.SETTLE: self._settle,
            wire.NEWS: self._await,
        }

    def run(self) -> None:
        """Serve until the client leaves."""
        poll = select.poll()
        poll.register(0, select.POLLIN)
        listening = False
        while True:
            while (found := self._frames.next()) is not None:
                self._take(*found)
            self._folder.leave()
            if self._news is not None and self._wanted != listening:
                (poll.register if self._wanted else poll.unregister)(self._news.fd)
                listening = self._wanted
            wait = self._news.wait() if self._news is not None and self._wanted else None
            ready = {fd for fd, _ in poll.poll(None if wait is None else wait * 1000)}
            if 0 in ready:
                data = os.read(0, 1 << 18)
                if not data:
                    self._drop()
                    return
                self._frames.feed(data)
            elif self._wanted:
                self._tell_news()

    def _take(self, kind: int, payload: bytes) -> None:
        if kind == wire.DATA:
            self._add(payload)
            return
        try:
            self._does[kind](payload.split(b"\0"))
        except ChangedError:
            self._answer(b"~")
        except FileNotFoundError:
            self._answer(b"~")
        except OSError as error:
            self._answer(b"!" + (error.strerror or str(error)).encode())

    def _hello(self, words: list[bytes]) -> None:
        import fnmatch

        root, key, make = (os.fsdecode(word) for word in words[:3])
        patterns = [os.fsdecode(word) for word in words[3:] if word]

        def skips(path: str) -> bool:
            name = path.rpartition("/")[2]
            return any(fnmatch.fnmatchcase(path if "/" in pattern else name, pattern) for pattern in patterns)

        place = os.path.realpath(os.path.expanduser(root))
        if make:
            os.makedirs(place, exist_ok=True)
        os.umask(0)  # the client says all other permissions
        self._folder = Folder(place, skips)
        self._tokens = f"{os.path.expanduser(_STATE)}/{key}"
        self._clean = bool(make)
        os.write(1, wire.frame(wire.HELLO, wire.fields(*self._read_tokens(), self._folder.mark(make=self._clean))))

    def _look(self, words: list[bytes]) -> None:
        error = b""
        waiting = bytearray()
        try:
            for path in words:
                for name, entry in self._folder.look(os.fsdecode(path), clean=self._clean and not path):
                    waiting += wire.record(name, entry)
                    if len(waiting) > _ENTRIES:
                        _write(wire.frame(wire.ENTRIES, bytes(waiting)))
                        waiting.clear()
        except FileNotFoundError as problem:
            error = b"" if words == [b""] and not os.path.exists(self._folder.path) else str(problem).encode()
        except OSError as problem:
            error = f"{problem.filename}: {problem.strerror}".encode(errors="surrogateescape")
        if waiting:
            _write(wire.frame(wire.ENTRIES, bytes(waiting)))
        _write(wire.frame(wire.END, error[:300]))

    def _digests(self, words: list[bytes]) -> None:
        for path in words:
            try:
                self._digest(os.fsdecode(path))
            except (ChangedError, FileNotFoundError):
                self._answer(b"~")
            except OSError as error:
                self._answer(b"!" + (error.strerror or "").encode())

    def _digest(self, path: str) -> None:
        from hashlib import sha256

        total = sha256()
        reading = self._folder.read(path)
        for piece in reading.chunks():
            total.update(piece)
        self._done(path, reading.entry, settled=reading.settled, digest=total.digest())

    def _get(self, words: list[bytes]) -> None:
        expected, path = decoded(words[0]), os.fsdecode(words[1])
        reading = self._folder.read(path)
        if not reading.entry.same(expected):
            reading.close()
            raise ChangedError
        for piece in reading.chunks():
            _write(wire.frame(wire.DATA, piece))
        self._done(path, reading.entry, settled=reading.settled)

    def _put(self, words: list[bytes]) -> None:
        self._arriving = os.fsdecode(words[3])
        try:
            self._incoming = self._folder.receive(self._arriving, int(words[1], 8), int(words[2]), _expected(words[0]))
        except (ChangedError, FileNotFoundError):
            self._failed = b"~"
        except OSError as error:
            self._failed = b"!" + (error.strerror or "").encode()

    def _add(self, data: bytes) -> None:
        if self._incoming is not None:
            try:
                self._incoming.write(data)
            except OSError as error:
                self._failed = b"!" + (error.strerror or "").encode()
                self._drop()

    def _commit(self, _: list[bytes]) -> None:
        incoming, self._incoming = self._incoming, None
        failed, self._failed = self._failed, b""
        if incoming is None:
            self._answer(failed)
        else:
            self._done(self._arriving, incoming.commit())

    def _abort(self, _: list[bytes]) -> None:
        self._drop()
        self._failed = b""
        self._answer(b"~")

    def _drop(self) -> None:
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.abort()

    def _link(self, words: list[bytes]) -> None:
        path = os.fsdecode(words[2])
        self._done(path, self._folder.link(path, os.fsdecode(words[3]), int(words[1]), _expected(words[0])))

    def _make(self, words: list[bytes]) -> None:
        self._folder.make(os.fsdecode(words[1]), int(words[0], 8))
        self._answer(b"+")

    def _remove(self, words: list[bytes]) -> None:
        self._folder.remove(os.fsdecode(words[1]), decoded(words[0]))
        self._answer(b"+")

    def _move(self, words: list[bytes]) -> None:
        path, new = os.fsdecode(words[1]), os.fsdecode(words[2])
        entry = self._folder.move(path, new, decoded(words[0]))
        self._done(os.path.join(os.path.dirname(path), new), entry)

    def _settle(self, words: list[bytes]) -> None:
        """Put all on the disk, then the token, beside the one before: the client may not come to keep it."""
        self._folder.settle()
        os.makedirs(os.path.dirname(self._tokens), 0o700, exist_ok=True)
        token = os.fsdecode(words[0])
        with open(f"{self._tokens}.tmp", "w") as file:
            file.write(f"{token}\n{self._read_tokens()[0]}\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{self._tokens}.tmp", self._tokens)
        Folder(os.path.dirname(self._tokens), lambda path: False).settle()
        self._answer(b"+")

    def _read_tokens(self) -> list[str]:
        try:
            with open(self._tokens) as file:
                return [*file.read(1000).split("\n"), "", ""][:2]
        except FileNotFoundError:
            return ["", ""]

    def _await(self, _: list[bytes]) -> None:
        self._wanted = True
        if self._news is None:
            try:
                self._news = News(self._folder)
            except OSError as error:
                _write(_unwatched(error))

    def _tell_news(self) -> None:
        assert self._news is not None
        try:
            paths = self._news.take()
        except OSError as error:
            self._wanted = False
            _write(_unwatched(error))
            return
        payload = b"0"
        if paths is not None:
            known, told = self._known, []
            records = bytearray()
            for path in paths:
                try:
                    found = _some(self._folder.look(path))
                except OSError:
                    found = None
                if found is not None and len(found) == 1 and known.get(path) == found[0][1].mark:
                    continue
                told.append(path)
                records += b"" if found is None else b"".join(wire.record(*each) for each in found)
                if found is None or len(records) > wire.MOST_NEWS:
                    records += bytes(wire.MOST_NEWS)
            if not told:
                return
            payload = b"2" + wire.fields(*told, b"", b"") + records
            if len(payload) > wire.MOST_NEWS:
                payload = b"1" + wire.fields(*told)
            if len(payload) > wire.MOST_NEWS:
                payload = b"0"
        self._wanted = False
        _write(wire.frame(wire.NEWS, payload))

    def _done(self, path: str, entry: Entry, *, settled: bool = True, digest: bytes = b"") -> None:
        if entry.kind == FILE:
            if len(self._known) > _MOST_KNOWN:
                self._known.clear()
            self._known[path] = entry.mark
        self._answer(b"+%d" % settled + entry.encode() + (b" " + digest.hex().encode() if digest else b""))

    @staticmethod
    def _answer(payload: bytes) -> None:
        _write(wire.frame(wire.RESULT, payload))


def _some(found: Iterator[tuple[str, Entry]]) -> list[tuple[str, Entry]] | None:
    """Return what `found` yields, None for more than can be told at once."""
    some = []
    for each in found:
        some.append(each)
        if len(some) > 100:
            return None
    return some


def _expected(word: bytes) -> Entry | None:
    return decoded(word) if word else None


def _unwatched(error: OSError) -> bytes:
    return wire.frame(wire.END, f"cannot watch its folders: {error.strerror}".encode())


def _write(data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(1, rest) :]


def main() -> None:
    """Serve the client of this process."""
    os.umask(0o022)
    Server().run()
