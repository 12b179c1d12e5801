"""HTTP/1.1 as this client speaks it: one request and its answer on each connection.  No I/O here.

An answer is JSON, text, or a stream of server-sent events.  `shed.client.aio.requests` carries the bytes.  What an
answer may look like: RFC 9112; interim answers (1xx) are skipped, trailers are ignored.  Written by hand because h11
takes longer to import than a command like `shed list` takes altogether.
"""

from __future__ import annotations

import time

from shed.client.failures import error_of
from shed.client.transport import authorization, left, silent, stranger, user_agent
from shed.errors import UnavailableError
from shed.guest import wirejson
from shed.progress import BlobEvent, BytesEvent, OutputEvent, PhaseEvent, WarningEvent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from shed.client.address import Address
    from shed.errors import ShedError
    from shed.progress import Event as ProgressEvent

TIMEOUT = 60.0
"""Seconds without a byte after which an ordinary request fails.  Event streams have none: the server decides how long
work may take.
"""
_WHOLE = 10
"""How many times as long a whole answer may take: a server that sends a byte now and then is never silent."""
LONGEST_HEAD = 64 * 1024
LONGEST_BODY = 256 * 1024 * 1024
LONGEST_EVENT = 16 * 1024 * 1024
"""Bytes of one event, and of a line of it."""
_LONGEST_LINE = 4096
"""Bytes of the size of a chunk, or of a trailer, with what else is in the line."""
_MOST_DIGITS = 15
"""Of a length."""


class Event:
    """One server-sent event: its name, and its JSON."""

    __slots__ = ("data", "name")

    def __init__(self, name: str, data: dict[str, Any]) -> None:
        self.name = name
        self.data = data


class Head:
    """Status and headers of an answer."""

    __slots__ = ("headers", "status")

    def __init__(self, data: bytes) -> None:
        """Raises `ValueError` for what is not the head of an HTTP/1.1 answer."""
        first, *lines = data.decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        status = rest[:3]
        if not version.startswith("HTTP/1.") or not (status.isascii() and status.isdigit()) or rest[3:4].strip():
            raise ValueError("not an HTTP answer")
        self.status = int(status)
        self.headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise ValueError("not a header")
            name, value = name.lower(), value.strip()
            if name == "content-length" and self.headers.get(name, value) != value:
                raise ValueError("two lengths")
            self.headers[name] = value


class Answer:
    """The answer to one request, from the bytes that come."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.head: Head | None = None
        self.complete = False
        """Whether all of it has been returned by `next`."""
        self._received = bytearray()
        self._ended = False
        self._left: int | None = None
        """Bytes still to come of the body or of a chunk; None when the end of the connection ends the body."""
        self._chunk = ""
        """What comes next of a body in chunks: ``size``, ``data``, ``end`` or ``trailer``; empty for other bodies."""

    def request(self, method: str, target: str, body: object, accept: str) -> bytes:
        """Return the request, after whose answer the server hangs up; `body` is sent as JSON, unless it is None."""
        lines = [
            f"{method} {target} HTTP/1.1",
            f"Host: {self.address.authority()}",
            f"User-Agent: {user_agent(self.address)}",
            f"Accept: {accept}",
            "Connection: close",
        ]
        if known := authorization(self.address):
            lines.append(f"Authorization: {known}")
        payload = b"" if body is None else wirejson.dumps(body)
        if body is not None:
            lines.append("Content-Type: application/json")
        if payload or method != "GET":
            lines.append(f"Content-Length: {len(payload)}")
        return "\r\n".join([*lines, "", ""]).encode("ascii") + payload

    def feed(self, data: bytes) -> None:
        """Take what the server sent; nothing is its end."""
        self._ended = self._ended or not data
        self._received += data

    def next(self) -> bytes | None:
        """Return a piece of the body, which is empty when the head has come.

        None means that more must be fed, unless the answer is `complete`.  Raises `UnavailableError`.
        """
        if self.head is None:
            return self._take_head()
        if self.complete:
            return None
        try:
            part = self._take_chunked() if self._chunk else self._take_plain()
        except ValueError:
            raise self.lost() from None
        if part is None and self._ended and not self.complete:
            raise self.lost()
        return part

    def _take_head(self) -> bytes | None:
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            try:
                head = Head(self._take(end + 4)[:-4])
                self._expect_body(head)
            except ValueError:
                raise stranger(self.address) from None
            if head.status >= 200:
                self.head = head
                return b""
        if len(self._received) > LONGEST_HEAD or not b"HTTP/1.".startswith(self._received[:7]):
            raise stranger(self.address)
        if self._ended:
            raise left(self.address)
        return None

    def _expect_body(self, head: Head) -> None:
        length, coding = head.headers.get("content-length"), head.headers.get("transfer-encoding")
        if length is not None and not (length.isascii() and length.isdigit() and len(length) <= _MOST_DIGITS):
            raise ValueError("not a length")
        if head.status == 101 or (coding is not None and coding.lower() != "chunked"):
            raise ValueError("not what was asked for")
        if coding is not None:
            self._chunk = "size"
        else:
            self._left = None if length is None else int(length)

    def _take_plain(self) -> bytes | None:
        part = self._take(len(self._received) if self._left is None else min(self._left, len(self._received)))
        if self._left is not None:
            self._left -= len(part)
            self.complete = not self._left and not part
        else:
            self.complete = self._ended and not part
        return part or None

    def _take_chunked(self) -> bytes | None:
        while not self.complete:
            if self._chunk == "data":
                assert self._left is not None
                part = self._take(min(self._left, len(self._received)))
                self._left -= len(part)
                if not self._left:
                    self._chunk = "end"
                return part or None
            line = self._take_line()
            if line is None:
                return None
            if self._chunk == "size":
                size = line.partition(b";")[0].strip()
                if not size or len(size) > _MOST_DIGITS or size.strip(b"0123456789abcdefABCDEF"):
                    raise ValueError("not the size of a chunk")
                self._left = int(size, 16)
                self._chunk = "data" if self._left else "trailer"
            elif self._chunk == "trailer":
                self.complete = not line
            elif line:
                raise ValueError("a chunk that is longer than it said")
            else:
                self._chunk = "size"
        return None

    def _take_line(self) -> bytes | None:
        end = self._received.find(b"\n", 0, _LONGEST_LINE)
        if end < 0:
            if len(self._received) >= _LONGEST_LINE:
                raise ValueError("a line without end")
            return None
        return self._take(end + 1).rstrip(b"\r\n")

    def _take(self, size: int) -> bytes:
        part = bytes(self._received[:size])
        del self._received[:size]
        return part

    @property
    def failed(self) -> bool:
        """Whether it says no; then its body says why."""
        return self.head is not None and self.head.status >= 300

    def failure(self, body: bytes) -> ShedError:
        """Return the error that it stands for."""
        assert self.head is not None
        return error_of(self.head.status, body, server=self.head.headers.get("server", ""))

    def content_type(self) -> str:
        """Return the media type of the body, without parameters."""
        assert self.head is not None
        return self.head.headers.get("content-type", "").partition(";")[0].strip().lower()

    def value(self, body: bytes) -> Any:
        """Return what the body says: decoded JSON, text, or None when there is none.

        Raises `UnavailableError` for anything else.
        """
        if not body:
            return None
        kind = self.content_type()
        if kind not in {"application/json", "text/plain"}:  # a web page, most likely
            raise _no_server(self.address)
        return decode(body, self.address) if kind == "application/json" else body.decode(errors="surrogateescape")

    def lost(self) -> UnavailableError:
        """Return the error for a connection that broke."""
        if self.head is None:
            return left(self.address)
        return UnavailableError(
            f"lost the connection to the server at {self.address}", hint="try again, or see its log"
        )

    def too_long(self) -> UnavailableError:
        """Return the error for a body without end."""
        return UnavailableError(f"the answer of the server at {self.address} is too long")


def decode(data: bytes, address: Address) -> Any:
    """Return the value of a JSON text.  Raises `UnavailableError` for anything else."""
    try:
        return wirejson.loads(data)
    except (ValueError, RecursionError):
        raise _no_server(address) from None


def _no_server(address: Address) -> UnavailableError:
    return UnavailableError(f"what listens at {address} does not answer like a shed server", hint="check the address")


class Patience:
    """How long an answer is waited for: `silence` is the seconds without a byte.

    The whole may take ten times as long.
    """

    def __init__(self, address: Address, silence: float) -> None:
        self._address = address
        self._silence = silence
        self._end = time.monotonic() + _WHOLE * silence
        self._endless = False

    def lift(self) -> None:
        """Wait for what follows as long as it takes."""
        self._endless = True

    def next(self) -> float | None:
        """Return the seconds for the next bytes, None for no limit.

        Raises `UnavailableError` (TIMEOUT) when there are none left.
        """
        if self._endless:
            return None
        left = self._end - time.monotonic()
        if left <= 0:
            raise silent(self._address, _WHOLE * self._silence)
        return min(left, self._silence)

    def over(self) -> UnavailableError:
        """Return the error for a server that was silent for that time."""
        return silent(self._address, self._silence)


class EventParser:
    """Turns the bytes of a ``text/event-stream`` body into (event, data) pairs, as they come."""

    def __init__(self) -> None:
        self._name = "message"
        self._data: list[str] = []
        self._rest = bytearray()
        self._size = 0
        """Bytes of the event that has begun."""

    def feed(self, chunk: bytes) -> Iterator[tuple[str, str]]:
        """Yield what `chunk` completes.  Raises `UnavailableError` for an event without end."""
        self._size += len(chunk)
        if self._size > LONGEST_EVENT:
            raise UnavailableError(
                f"the server sends an event of more than {LONGEST_EVENT >> 20} MiB", hint="check the address"
            )
        self._rest += chunk
        if b"\n" not in chunk:
            return
        *lines, self._rest = self._rest.split(b"\n")
        for raw in lines:
            line = raw.removesuffix(b"\r").decode(errors="replace")
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line:
                if self._data:
                    yield self._name, "\n".join(self._data)
                self._name, self._data, self._size = "message", [], len(self._rest)
            elif field == "event":
                self._name = value
            elif field == "data":
                self._data.append(value)


def plain_event(answer: Answer, body: bytes) -> Event:
    """Return a plain answer to a request that asked for events as its last one."""
    return Event("complete", _object(answer.value(body)))


def decode_event(name: str, text: str, address: Address) -> Event:
    """Return an event with its JSON.  An ``error`` event is raised as a `ShedError`."""
    data = _object(decode(text.encode(), address))
    if name == "error":
        status = data.get("status")
        raise error_of(status if isinstance(status, int) else 0, text.encode())
    return Event(name, data)


def went_away() -> UnavailableError:
    """Return the error for work whose end nobody told."""
    return UnavailableError("the server went away before the work was done", hint="see how far it came: shed list")


def progress_event(event: Event) -> ProgressEvent | None:
    """Return what an event of work under way says; None for one that is not known here."""
    data = event.data
    if event.name == "progress":
        phase, message = str(data.get("phase", "")), str(data.get("message", ""))
        return WarningEvent(message) if data.get("warning") else PhaseEvent(phase, message)
    if event.name == "output":
        return OutputEvent(str(data.get("line", "")))
    current, total = _number(data.get("current")) or 0, _number(data.get("total"))
    if event.name == "bytes":
        return BytesEvent(str(data.get("label", "")), current, total)
    if event.name == "blob":
        digest, label, status = (str(data.get(key, "")) for key in ("digest", "label", "status"))
        return BlobEvent(digest, label, status, current, total)
    return None


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None
