"""HTTP requests to the server: JSON in, JSON out, or a stream of server-sent events.  One connection per request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h11

from shed.client.address import Address
from shed.client.transport import connect, left, silent
from shed.errors import (
    BackendError,
    ConflictError,
    ConnectError,
    DataError,
    NotFoundError,
    ShedError,
    StorageError,
    UnavailableError,
    UsageError,
)
from shed.version import VERSION

TIMEOUT = 60.0
"""Seconds without a byte after which an ordinary request fails.  Event streams have none: the server decides how long work may take."""
_CHUNK = 65536
_LONGEST_BODY = 256 * 1024 * 1024
_KINDS = (BackendError, UsageError, NotFoundError, ConflictError, ConnectError, DataError, UnavailableError, StorageError)
_BY_STATUS: dict[int, type[ShedError]] = {kind.http_status: kind for kind in _KINDS}


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event: its name, and its JSON."""

    name: str
    data: dict[str, Any]


def request(address: Address, method: str, target: str, *, body: object = None, start: bool = True, timeout: float = TIMEOUT) -> Any:
    """Send one request and return what the server answers: decoded JSON, text, or None when there is no body.

    `timeout` is how many seconds the server may be silent.  Raises the `ShedError` the server answers with, or `UnavailableError`.
    """
    with _Exchange(address, method, target, body=body, accept="application/json", start=start, timeout=timeout) as exchange:
        data = exchange.read()
        kind = exchange.content_type()
    if not data:
        return None
    if kind == "application/json":
        return _decode(data, address)
    return data.decode(errors="surrogateescape")


def events(address: Address, method: str, target: str, *, body: object = None) -> Iterator[Event]:
    """Send one request and yield its events as they come.  Closing the iterator drops the connection.

    A server that answers with plain JSON yields it as one ``complete`` event.  An ``error`` event is raised as a `ShedError`;
    a stream that ends without ``complete`` is an `UnavailableError`.
    """
    with _Exchange(address, method, target, body=body, accept="text/event-stream", start=True) as exchange:
        if exchange.content_type() != "text/event-stream":
            data = exchange.read()
            yield Event("complete", _object(_decode(data, address)) if data else {})
            return
        exchange.patience(None)
        for name, text in parse_events(exchange.chunks()):
            data_object = _object(_decode(text.encode(), address))
            if name == "error":
                status = data_object.get("status")
                raise error_of(status if isinstance(status, int) else 0, text.encode())
            yield Event(name, data_object)
            if name == "complete":
                return
    raise UnavailableError("the server went away before the work was done", hint="see how far it came: shed list")


def parse_events(chunks: Iterator[bytes]) -> Iterator[tuple[str, str]]:
    """Yield (event, data) of a ``text/event-stream`` body (WHATWG HTML, server-sent events)."""
    name, data, rest = "message", list[str](), b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for raw in lines:
            line = raw.removesuffix(b"\r").decode(errors="replace")
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line:
                if data:
                    yield name, "\n".join(data)
                name, data = "message", []
            elif field == "event":
                name = value
            elif field == "data":
                data.append(value)


def error_of(status: int, body: bytes, *, server: str = "") -> ShedError:
    """Return the error that an answer with `status` and `body` stands for; `status` 0 means that the code alone must tell its kind.

    `server` is the answer's Server header: when it is of another version than this client, the hint says so.
    """
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    inner = document.get("error", document) if isinstance(document, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("message"), str):
        return UnavailableError(f"what answered, with status {status}, is not a shed server", hint="check the address")
    code, hint = inner.get("code"), inner.get("hint")
    hints = [hint] if isinstance(hint, str) and hint else []
    if server.startswith("shed/") and (warning := other_version(server.removeprefix("shed/"))):
        hints.append(warning)
    kind = _BY_STATUS.get(status) or _kind_of(str(code))
    return kind(inner["message"], hint="; ".join(hints) or None, code=code if isinstance(code, str) else None)


def other_version(version: object) -> str | None:
    """Return what to do when the server says that it is of another version than this client, else None."""
    if version == VERSION:
        return None
    return f"the server is version {version}, this is {VERSION}: restart it with `shed server stop` (sheds keep running)"


def _kind_of(code: str) -> type[ShedError]:
    """Return the class for an error event, which has no status: what the user got wrong is told by its code."""
    for kind in _BY_STATUS.values():
        if kind.code == code:
            return kind
    return UsageError if code.startswith("INVALID_") else ShedError


def _decode(data: bytes, address: Address) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        raise UnavailableError(f"what listens at {address} does not answer like a shed server", hint="check the address") from None


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


class _Exchange:
    """One request and its answer, on a connection of its own.  Entering it returns when the head of a successful answer is here."""

    def __init__(
        self, address: Address, method: str, target: str, *, body: object, accept: str, start: bool, timeout: float = TIMEOUT
    ) -> None:
        self._address = address
        self._timeout = timeout
        self._http = h11.Connection(h11.CLIENT)
        self._socket = connect(address, start=start)
        self._head: h11.Response | None = None
        headers = [
            ("Host", address.authority()),
            ("User-Agent", f"shed/{VERSION}"),
            ("Accept", accept),
            ("Connection", "close"),
        ]
        payload = b"" if body is None else json.dumps(body).encode()
        if body is not None:
            headers.append(("Content-Type", "application/json"))
        if payload or method != "GET":
            headers.append(("Content-Length", str(len(payload))))
        self._request = h11.Request(method=method, target=target, headers=headers)
        self._payload = payload

    def __enter__(self) -> _Exchange:
        try:
            self.patience(self._timeout)
            message = self._http.send(self._request) or b""
            if self._payload:
                message += self._http.send(h11.Data(self._payload)) or b""
            message += self._http.send(h11.EndOfMessage()) or b""
            self._call(self._socket.sendall, message)
            event = self._next()
            while isinstance(event, h11.InformationalResponse):
                event = self._next()
            if not isinstance(event, h11.Response):
                raise self._lost()
            self._head = event
            if event.status_code >= 300:
                raise error_of(event.status_code, self.read(), server=self._header(b"server"))
        except BaseException:
            self._socket.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def patience(self, seconds: float | None) -> None:
        """Set how long the server may be silent."""
        self._socket.settimeout(seconds)

    def content_type(self) -> str:
        """Return the media type of the answer, without parameters."""
        return self._header(b"content-type").partition(";")[0].strip().lower()

    def _header(self, wanted: bytes) -> str:
        assert self._head is not None
        return next((value.decode("latin-1") for name, value in self._head.headers if name == wanted), "")

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it comes."""
        while True:
            event = self._next()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return
            else:
                raise self._lost()

    def read(self) -> bytes:
        """Return the whole body."""
        body = bytearray()
        for chunk in self.chunks():
            body += chunk
            if len(body) > _LONGEST_BODY:
                raise UnavailableError(f"the answer of the server at {self._address} is too long")
        return bytes(body)

    def _next(self) -> h11.Event:
        ended = False
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError:
                if ended and self._head is None:
                    raise left(self._address) from None
                if self._head is not None:
                    raise self._lost() from None
                raise UnavailableError(f"what listens at {self._address} is not a shed server", hint="check the address") from None
            if not isinstance(event, type):
                return event
            if event is h11.PAUSED:  # more bytes than it announced
                raise self._lost()
            data = self._call(self._socket.recv, _CHUNK)
            ended = not data
            self._http.receive_data(data)

    def _call(self, call: Any, argument: Any) -> Any:
        try:
            return call(argument)
        except TimeoutError:
            raise silent(self._address, self._timeout) from None
        except OSError:
            raise self._lost() from None

    def _lost(self) -> UnavailableError:
        if self._head is None and self._address.ssh is not None:
            return left(self._address)
        return UnavailableError(f"lost the connection to the server at {self._address}", hint="try again, or see its log")
