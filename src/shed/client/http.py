"""HTTP requests to the server: JSON in, JSON out, or a stream of server-sent events.  One connection per request."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h11

from shed.client.address import Address
from shed.client.failures import error_of
from shed.client.transport import LeftError, authorization, connect, left, silent, stranger
from shed.errors import ShedError, UnavailableError
from shed.version import VERSION

TIMEOUT = 60.0
"""Seconds without a byte after which an ordinary request fails.  Event streams have none: the server decides how long
work may take.
"""
_WHOLE = 10
"""How many times as long a whole answer may take: a server that sends a byte now and then is never silent."""
_CHUNK = 65536
LONGEST_BODY = 256 * 1024 * 1024
LONGEST_EVENT = 16 * 1024 * 1024
"""Bytes of one event, and of a line of it."""


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event: its name, and its JSON."""

    name: str
    data: dict[str, Any]


def request(
    address: Address, method: str, target: str, *, body: object = None, start: bool = True, timeout: float = TIMEOUT
) -> Any:
    """Send one request and return what the server answers: decoded JSON, text, or None when there is no body.

    `timeout` is how many seconds the server may be silent.  Raises the `ShedError` the server answers with, or
    `UnavailableError`.
    """

    def ask() -> Any:
        with _Exchange(
            address, method, target, body=body, accept="application/json", start=start, timeout=timeout
        ) as exchange:
            return exchange.answer.value(exchange.read())

    try:
        return ask()
    except LeftError:
        if method != "GET" or address.ssh is not None:  # ssh has said why, and it would only say so again
            raise
    return ask()  # of the next server, when this one was just ending


def events(address: Address, method: str, target: str, *, body: object = None) -> Iterator[Event]:
    """Send one request and yield its events as they come.  Closing the iterator drops the connection.

    A server that answers with plain JSON yields it as one ``complete`` event.  An ``error`` event is raised as a
    `ShedError`; a stream that ends without ``complete`` is an `UnavailableError`.
    """
    with _Exchange(address, method, target, body=body, accept="text/event-stream", start=True) as exchange:
        if exchange.answer.content_type() != "text/event-stream":
            yield plain_event(exchange.answer, exchange.read())
            return
        exchange.patience.lift()
        for name, text in parse_events(exchange.chunks()):
            yield decode_event(name, text, address)
            if name == "complete":
                return
    raise went_away()


def went_away() -> UnavailableError:
    """Return the error for work whose end nobody told."""
    return UnavailableError("the server went away before the work was done", hint="see how far it came: shed list")


def parse_events(chunks: Iterator[bytes]) -> Iterator[tuple[str, str]]:
    """Yield (event, data) of a ``text/event-stream`` body (WHATWG HTML, server-sent events)."""
    parser = EventParser()
    for chunk in chunks:
        yield from parser.feed(chunk)


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


def decode(data: bytes, address: Address) -> Any:
    """Return the value of a JSON text.  Raises `UnavailableError` for anything else."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise _no_server(address) from None


def _no_server(address: Address) -> UnavailableError:
    return UnavailableError(f"what listens at {address} does not answer like a shed server", hint="check the address")


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def encode_request(
    connection: h11.Connection, address: Address, method: str, target: str, *, body: object, accept: str
) -> bytes:
    """Return the bytes of a request whose answer ends the connection; `body` is sent as JSON, unless it is None."""
    headers = [
        ("Host", address.authority()),
        ("User-Agent", f"shed/{VERSION}"),
        ("Accept", accept),
        ("Connection", "close"),
    ]
    if known := authorization(address):
        headers.append(("Authorization", known))
    payload = b"" if body is None else json.dumps(body).encode()
    if body is not None:
        headers.append(("Content-Type", "application/json"))
    if payload or method != "GET":
        headers.append(("Content-Length", str(len(payload))))
    message = connection.send(h11.Request(method=method, target=target, headers=headers)) or b""
    if payload:
        message += connection.send(h11.Data(payload)) or b""
    return message + (connection.send(h11.EndOfMessage()) or b"")


class Answer:
    """The answer to one request, from the bytes that come: no I/O here."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.connection = h11.Connection(h11.CLIENT)
        self.head: h11.Response | None = None
        self._ended = False

    def feed(self, data: bytes) -> None:
        """Take what the server sent; nothing is its end."""
        self._ended = not data
        self.connection.receive_data(data)

    def event(self) -> h11.Event | None:
        """Return what comes next; None until there is more.  Raises `UnavailableError`."""
        try:
            event = self.connection.next_event()
        except h11.RemoteProtocolError:
            if self._ended and self.head is None:
                raise left(self.address) from None
            if self.head is not None:
                raise self.lost() from None
            raise stranger(self.address) from None
        if isinstance(event, h11.Response):
            self.head = event
        elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):  # more bytes than it announced, or fewer
            raise self.lost()
        return None if isinstance(event, type) else event

    def part(self, event: h11.Event) -> bytes | None:
        """Return a piece of the body; None at its end."""
        if isinstance(event, h11.EndOfMessage):
            return None
        if not isinstance(event, h11.Data):
            raise self.lost()
        return bytes(event.data)

    @property
    def failed(self) -> bool:
        """Whether it says no; then its body says why."""
        return self.head is not None and self.head.status_code >= 300

    def failure(self, body: bytes) -> ShedError:
        """Return the error that it stands for."""
        assert self.head is not None
        return error_of(self.head.status_code, body, server=self._header(b"server"))

    def content_type(self) -> str:
        """Return the media type of the body, without parameters."""
        return self._header(b"content-type").partition(";")[0].strip().lower()

    def _header(self, wanted: bytes) -> str:
        assert self.head is not None
        return next((value.decode("latin-1") for name, value in self.head.headers if name == wanted), "")

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


class _Exchange:
    """One request and its answer, on a connection of its own.

    Entering it returns when the head of a successful answer is here.
    """

    def __init__(
        self,
        address: Address,
        method: str,
        target: str,
        *,
        body: object,
        accept: str,
        start: bool,
        timeout: float = TIMEOUT,
    ) -> None:
        self.answer = Answer(address)
        self._socket = connect(address, start=start)
        self.patience = Patience(address, timeout)
        self._message = encode_request(self.answer.connection, address, method, target, body=body, accept=accept)

    def __enter__(self) -> _Exchange:
        try:
            self._call(self._socket.sendall, self._message)
            while self.answer.head is None:
                self._next()
            if self.answer.failed:
                raise self.answer.failure(self.read())
        except BaseException:
            self._socket.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it comes."""
        while (part := self.answer.part(self._next())) is not None:
            yield part

    def read(self) -> bytes:
        """Return the whole body."""
        body = bytearray()
        for chunk in self.chunks():
            body += chunk
            if len(body) > LONGEST_BODY:
                raise self.answer.too_long()
        return bytes(body)

    def _next(self) -> h11.Event:
        while (event := self.answer.event()) is None:
            self.answer.feed(self._call(self._socket.recv, _CHUNK))
        return event

    def _call(self, call: Any, argument: Any) -> Any:
        self._socket.settimeout(self.patience.next())
        try:
            return call(argument)
        except TimeoutError:
            raise self.patience.over() from None
        except OSError:
            raise self.answer.lost() from None
