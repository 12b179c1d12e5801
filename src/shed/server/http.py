"""HTTP/1.1 for one connection: h11 speaks the protocol, asyncio moves the bytes.

What comes out is a `Request`, and one answer to it.

Limits keep a client from holding more than its share: the head's size, the body's size, the time for both, the time of
silence. An answer is a whole body, a stream of events, or the end of HTTP on this connection (`Upgrade`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

import h11
import msgspec

from shed.api.base import API_VERSION, VERSION_HEADER
from shed.api.events import Failure, Fault
from shed.backends.base import Stream
from shed.errors import ShedError, UsageError
from shed.server.caller import Caller
from shed.sheds.bridge import bridge
from shed.version import VERSION

log = logging.getLogger(__name__)
MAX_HEAD = 64 * 1024
MAX_BODY = 1024 * 1024
MAX_QUERY = 100
STRANGER_TIMEOUT = 10.0
"""Seconds that a client has to begin its first request."""
LINGER_TIMEOUT = 2.0
"""Seconds for which what a refused client still sends is read, so that the refusal reaches it."""
IDLE_TIMEOUT = 75.0
"""Seconds a kept-alive connection may be silent between requests."""
REQUEST_TIMEOUT = 20.0
"""Seconds from a request's first byte to its last."""
KEEPALIVE = 15.0
"""Seconds of silence after which a stream of events has a comment, so that nobody in between hangs up."""
_READ = 65536
_Event = h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]
_HEADERS = [("Server", f"shed/{VERSION}"), (VERSION_HEADER, f"{API_VERSION}")]
Tell = Callable[[str], Awaitable[None]]
"""Tells the client, before the answer, what it is waiting for: ``waiting`` or ``starting``."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request with its whole body."""

    method: str
    path: tuple[str, ...]
    """The decoded segments of the path."""
    query: dict[str, str]
    headers: dict[str, str]
    """By lower-case name; of repeated ones, the last."""
    body: bytes
    caller: Caller
    left: Callable[[], Awaitable[None]] | None = None
    """Waits until the client has hung up.  Who calls it ends that before the request is answered."""
    tell: Tell | None = None
    """Sends a client that asked for it, by ``Prefer: processing``, an interim response 102 with the header
    ``Shed-State``.
    """

    @property
    def wants_events(self) -> bool:
        """Whether the client asks for progress as server-sent events."""
        return "text/event-stream" in self.headers.get("accept", "")


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Events:
    """A response of server-sent events, as encoded blocks."""

    blocks: AsyncGenerator[bytes, None]


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The end of HTTP: the connection becomes `protocol`, its bytes go to and from `stream`.

    With `half_close` either side may end its half first; without, a client that stops sending has gone.
    """

    protocol: str
    stream: Stream
    half_close: bool


Reply = Answer | Events | Upgrade
Handler = Callable[[Request], Awaitable[Reply]]
Admit = Callable[[dict[str, str]], Caller]
"""Says, from a request's headers, whom it is from; raises `ShedError` for a client that is not to be served."""


def json_answer(value: object, *, status: int = 200) -> Answer:
    """Return `value`, a struct of the contract, as a JSON response."""
    return Answer(status, encode(value) + b"\n")


def encode(value: object) -> bytes:
    """Return the JSON of `value`."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # the name of a file that is not UTF-8: as escaped halves of surrogate pairs
        return json.dumps(msgspec.to_builtins(value), separators=(",", ":")).encode()


def event_block(name: str, data: object) -> bytes:
    """Return one server-sent event with the JSON of `data`."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), encode(data))


def error_answer(error: ShedError) -> Answer:
    """Return the response that tells `error`."""
    fault = Fault(code=error.code, message=error.message, hint=error.next_step or None)
    return json_answer(Failure(error=fault), status=error.http_status)


class HttpConnection:
    """Serves the requests of one client, in turn, until it leaves or stays silent.

    `admit` is asked before a request's body is read.  `handle` never raises but for cancellation.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handle: Handler, admit: Admit
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._handle = handle
        self._admit = admit
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._asks_for_head = False
        self.idle = True
        """Whether no request is under way, so that the server may hang up when it ends."""
        self.caller: Caller | None = None
        """Who the client is, once it is known."""

    async def serve(self) -> None:
        """Serve until the connection ends, and close it."""
        try:
            while await self._serve_one():
                self._http.start_next_cycle()
        except (ConnectionError, TimeoutError):
            pass  # the client left, or fell silent
        finally:
            self._writer.close()

    async def _serve_one(self) -> bool:
        try:
            request = await self._request()
        except ShedError as error:
            if self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                await self._send_answer(error_answer(error), close=True, head_only=self._asks_for_head)
                await self._linger()
            return False
        if request is None:
            return False
        reply = await self._handle(request)
        if isinstance(reply, Answer):
            await self._send_answer(reply, head_only=request.method == "HEAD")
        elif isinstance(reply, Events):
            await self._send_events(reply)
        else:
            await self._switch(reply)
            return False
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _request(self) -> Request | None:
        """Return the next request, None when the client has none.

        Raises `UsageError` when it is too long, too slow, or not HTTP, and `TimeoutError` when it is silent.
        """
        self._asks_for_head = False
        event = self._next_event()
        if event is h11.NEED_DATA:
            self.idle = True
            async with asyncio.timeout(IDLE_TIMEOUT if self.caller else STRANGER_TIMEOUT):
                self._http.receive_data(await self._reader.read(_READ))
        self.idle = False
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                return await self._rest_of_request(event)
        except TimeoutError:
            raise UsageError("the request took too long to arrive", code="REQUEST_TIMEOUT") from None

    async def _linger(self) -> None:
        """Read what the client still sends, for a while.

        Closing with unread bytes would reset the connection, and lose the answer.
        """
        with contextlib.suppress(OSError, TimeoutError):
            self._writer.write_eof()
            async with asyncio.timeout(LINGER_TIMEOUT):
                left = MAX_BODY
                while left > 0 and (data := await self._reader.read(_READ)):
                    left -= len(data)

    async def _rest_of_request(self, head: _Event) -> Request | None:
        if head is h11.NEED_DATA:
            head = await self._event()
        if not isinstance(head, h11.Request):
            return None
        self._asks_for_head = head.method == b"HEAD"
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
        self.caller = caller = self._admit(headers)
        if self._http.they_are_waiting_for_100_continue:
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))
        body = bytearray()
        while isinstance(event := await self._event(), h11.Data):
            body += event.data
            if len(body) > MAX_BODY:
                raise UsageError(f"the body of the request is longer than {MAX_BODY} bytes", code="BODY_TOO_LARGE")
        return self._parse(head, headers, bytes(body), caller) if isinstance(event, h11.EndOfMessage) else None

    async def _event(self) -> _Event:
        while (event := self._next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(_READ))
        return event

    def _next_event(self) -> _Event:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            code = {431: "HEAD_TOO_LARGE", 501: "ENCODING_NOT_SUPPORTED"}.get(error.error_status_hint, "BAD_REQUEST")
            raise UsageError(f"not a proper HTTP request: {error}", code=code) from None

    def _parse(self, head: h11.Request, headers: dict[str, str], body: bytes, caller: Caller) -> Request:
        path, _, query = head.target.decode("ascii", "replace").partition("?")
        if not path.startswith("/"):
            raise UsageError("the target of the request is not a path", code="BAD_REQUEST")
        try:
            members = dict(parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_QUERY))
        except ValueError:
            raise UsageError(f"the query has more than {MAX_QUERY} members", code="BAD_REQUEST") from None
        return Request(
            method=head.method.decode("ascii"),
            path=tuple(unquote(segment) for segment in path.split("/")[1:]),
            query=members,
            headers=headers,
            body=body,
            caller=caller.by(headers.get("user-agent", "")),
            left=self._left,
            tell=self._tell if headers.get("prefer") == "processing" else None,
        )

    async def _left(self) -> None:
        kept = 0
        while (
            data := await self._reader.read(_READ)
        ) and kept < MAX_HEAD:  # who sends more than that does not wait for an answer
            self._http.receive_data(data)  # of the next request
            kept += len(data)

    async def _tell(self, state: str) -> None:
        with contextlib.suppress(ConnectionError):  # a client that left finds out nothing, and what it began goes on
            await self._send(h11.InformationalResponse(status_code=102, headers=[("Shed-State", state)]))

    async def _send(self, *events: h11.Event) -> None:
        data = b"".join(self._http.send(event) or b"" for event in events)
        self._writer.write(data)
        await self._writer.drain()

    async def _send_answer(self, answer: Answer, *, close: bool = False, head_only: bool = False) -> None:
        headers = [*_HEADERS, ("Content-Type", answer.content_type), ("Content-Length", str(len(answer.body)))]
        if answer.status == 401:
            headers.append(("WWW-Authenticate", "Bearer"))
        if close:
            headers.append(("Connection", "close"))
        response = h11.Response(status_code=answer.status, headers=headers)
        await self._send(response, h11.Data(data=b"" if head_only else answer.body), h11.EndOfMessage())

    async def _send_events(self, events: Events) -> None:
        headers = [*_HEADERS, ("Content-Type", "text/event-stream"), ("Cache-Control", "no-store")]
        await self._send(h11.Response(status_code=200, headers=headers))
        async with contextlib.aclosing(events.blocks) as blocks:
            async for block in blocks:
                await self._send(h11.Data(data=block))
        await self._send(h11.EndOfMessage())

    async def _switch(self, upgrade: Upgrade) -> None:
        early = self._http.trailing_data[0]
        try:
            headers = [*_HEADERS, ("Connection", "Upgrade"), ("Upgrade", upgrade.protocol)]
            self._writer.write(self._http.send(h11.InformationalResponse(status_code=101, headers=headers)) or b"")
            await bridge(self._reader, self._writer, upgrade.stream, early, half_close=upgrade.half_close)
        finally:
            upgrade.stream.close()
