"""One connection of a shed for which TLS is opened: HTTP/1.1 between the shed and a server, request by request.

h11 takes apart what comes from either side, and writes anew what goes to the other.  Nothing is kept but the part of a
body that is under way: who takes it slowly slows down who sends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import h11

from shed.egress.orders import Opening, Orders
from shed.egress.tls.request import Ready, Refused, framing, is_framed_twice, passed_on, prepare, trailers
from shed.egress.tls.swap import Headers, Mask, unswapped

MAX_HEAD = 64 * 1024
"""Bytes of a head."""
IDLE = 120.0
"""Seconds between two requests."""
HEAD = 30.0
"""Seconds from a head's first byte to its last."""
_LINGER = 2.0
"""Seconds for which what a client still sends is read, so that an answer reaches it."""
_HELD = 0.2
"""Seconds for which the end of a part of an answer is held back, as it may be the beginning of a value."""
_Event = h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]


class Unreachable(Exception):  # noqa: N818  it is an answer
    """The server cannot be asked, or does not answer as it should; says why in a sentence."""


class ByteStream(Protocol):
    """One side of the connection, as bytes."""

    sock: socket.socket

    async def receive(self) -> bytes:
        """Return what comes next, nothing at the end.  Raises `OSError`."""

    async def send(self, data: bytes) -> None:
        """Send all of `data`.  Raises `OSError`."""

    async def finish(self) -> None:
        """Say that nothing more is sent."""


class End:
    """One side of the connection."""

    def __init__(self, stream: ByteStream, role: type[h11.CLIENT | h11.SERVER]) -> None:
        self.stream = stream
        self.http = h11.Connection(role, max_incomplete_event_size=MAX_HEAD)
        self._ahead: asyncio.Task[bytes] | None = None

    def listen(self) -> asyncio.Task[bytes]:
        """Return what waits for the next bytes of this side; they are not lost when nobody waits for it."""
        if self._ahead is None:
            self._ahead = asyncio.ensure_future(self.stream.receive())
        return self._ahead

    async def receive(self) -> bytes:
        """Return the next bytes, nothing at the end.  Raises `OSError`."""
        data = await asyncio.shield(self.listen())
        self._ahead = None
        return data

    async def event(self) -> _Event:
        """Return what this side says next.  Raises `h11.RemoteProtocolError`, `OSError`."""
        while (event := self.http.next_event()) is h11.NEED_DATA:
            self.http.receive_data(await self.receive())
        return event

    async def send(self, event: h11.Event) -> None:
        """Tell this side.  Raises `h11.LocalProtocolError`, `OSError`."""
        if data := self.http.send(event):
            await self.stream.send(data)

    def reuse(self) -> bool:
        """Have it be ready for another request, if it is willing."""
        if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
            return True
        return False

    async def close(self) -> None:
        """Wait for nothing more.  Only then may the socket be closed: the event loop knows it by its number."""
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.gather(self._ahead, return_exceptions=True)


@dataclass(slots=True)
class Opened:
    """A connection between a shed and `port` of the host `name`."""

    name: str
    port: int
    stream: ByteStream
    """Where the shed is."""
    connect: Callable[[], Awaitable[ByteStream]]
    """Reaches the server.  Raises `Unreachable`."""
    holds: Callable[[], tuple[Orders, Opening] | None]
    """Says what holds for the next request; None when it is not opened any more."""
    tell: Callable[[dict[str, object]], None]
    """Is told what came of a request."""
    hint: str
    """The second sentence of a refusal."""
    prepare: Callable[[h11.Request, str, int, Orders, Opening], Ready] = prepare
    """Says how a request is sent.  Raises `Refused`."""
    _inside: End = field(init=False)
    _outside: End | None = None
    _fresh: bool = True
    """Whether the server has not answered by its connection yet."""

    def __post_init__(self) -> None:
        self._inside = End(self.stream, h11.SERVER)

    async def run(self) -> None:
        """Serve requests until one side ends it.  Raises `OSError`, `h11.ProtocolError` when the connection breaks."""
        try:
            while await self._serve_one() and self._inside.reuse():
                pass
            await self._linger()
        finally:
            await self._inside.close()
            await self._drop_outside()

    async def _drop_outside(self) -> None:
        outside, self._outside = self._outside, None
        if outside is not None:
            await outside.close()
            outside.stream.sock.close()

    async def _linger(self) -> None:
        """End it so that the last answer is not lost: a close with unread bytes would be a reset."""
        await self._inside.stream.finish()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_LINGER):
                while await self._inside.receive():
                    pass

    async def _serve_one(self) -> bool:
        """Serve one request; say whether there may be another one."""
        try:
            request = await self._request()
        except h11.RemoteProtocolError as error:
            await self._answer(error.error_status_hint, f"this is not a proper HTTP/1.1 request: {error}")
            return False
        if request is None or (found := self.holds()) is None:
            return False
        began = time.monotonic()
        told: dict[str, object] = {
            "method": request.method.decode("ascii"),
            "path": request.target.partition(b"?")[0].decode("ascii")[:500],
            "allowed": True,
        }
        try:
            ready = self.prepare(request, self.name, self.port, *found)
            told["secrets"] = list(ready.used)
            told["status"] = await self._exchange(request, ready)
        except Refused as refused:
            told |= {"allowed": False, "rule": str(refused), "status": refused.status}
            await self._answer(refused.status, f"{told['method']} {self.name} is not allowed: {refused}", request)
            return False
        except Unreachable as error:
            told |= {"error": str(error), "status": 502}
            await self._answer(502, str(error), request)
            return False
        except BaseException:
            told["error"] = "it broke"
            raise
        finally:
            self.tell({**told, "seconds": round(time.monotonic() - began, 3)})
        return True

    async def _request(self) -> h11.Request | None:
        """Return the head of the next request, None when there is none or the server has left."""
        inside, outside = self._inside, self._outside
        if not inside.http.trailing_data[0]:
            waited = {inside.listen()} if outside is None else {inside.listen(), outside.listen()}
            done, _ = await asyncio.wait(waited, timeout=IDLE, return_when=asyncio.FIRST_COMPLETED)
            if inside.listen() not in done:
                return None
        if outside is not None and outside.listen().done():
            await self._drop_outside()  # it was about to close when the request came: there is another one
        async with asyncio.timeout(HEAD):
            event = await inside.event()
        return event if isinstance(event, h11.Request) else None

    async def _exchange(self, request: h11.Request, ready: Ready) -> int:
        """Send the request and pass on its answer; return the answer's status.

        The answer may begin before the request has ended, and end it.
        """
        if self._outside is None:
            self._outside, self._fresh = End(await self.connect(), h11.CLIENT), True
        outside = self._outside
        up = asyncio.ensure_future(self._up(outside, ready.head))
        down = asyncio.ensure_future(self._down(outside, request, ready))
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            if not down.done():
                up.result()
                watch = self._inside.listen()  # a client that leaves now does not want the answer
                await asyncio.wait({watch, down}, return_when=asyncio.FIRST_COMPLETED)
                if not down.done():
                    watch.result()
            status = await down
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
        if not outside.reuse():
            await self._drop_outside()
        return status

    async def _up(self, outside: End, head: h11.Request) -> None:
        """Pass on the request.  Raises when the client breaks off; a server that takes no more may still answer."""
        event: h11.Event = head
        while True:
            with contextlib.suppress(OSError):
                await outside.send(event)
            if isinstance(event, h11.EndOfMessage):
                return
            part = await self._inside.event()
            assert isinstance(part, h11.Data | h11.EndOfMessage)
            event = part if isinstance(part, h11.Data) else h11.EndOfMessage(headers=trailers(part.headers))

    async def _down(self, outside: End, request: h11.Request, ready: Ready) -> int:
        """Pass on the answer and return its status.  Raises `Unreachable` when there is none."""
        inside, modern = self._inside, request.http_version >= b"1.1"
        while True:
            try:
                event = await outside.event()
            except (h11.RemoteProtocolError, OSError) as error:
                if not self._fresh:  # it was about to close: clients know that, and try again
                    raise ConnectionResetError(errno.ECONNRESET, "the server has left") from None
                raise Unreachable(f"the server does not answer as it should: {_words(error)}") from None
            if isinstance(event, h11.Response):
                break
            if not isinstance(event, h11.InformationalResponse):
                raise Unreachable("the server does not answer as it should: it has closed the connection")
            if event.status_code == 101:
                await self._switch(outside, event, ready)
                return 101
            if modern:
                await inside.send(_informational(event, _answer_headers(event.headers, ready)))
        self._fresh = False
        if is_framed_twice(event.headers):
            raise Unreachable("the server does not answer as it should: a Content-Length and a Transfer-Encoding")
        await inside.send(
            h11.Response(
                status_code=event.status_code,
                reason=_starred(event.reason, ready),
                headers=[*_answer_headers(event.headers, ready), *framing(event.headers)],
            )
        )
        status, mask = event.status_code, _mask(event, ready)
        while not isinstance(event := await self._part(outside, mask), h11.EndOfMessage):
            assert isinstance(event, h11.Data)
            if data := mask.feed(event.data):
                await inside.send(h11.Data(data=data))
        if data := mask.end():
            await inside.send(h11.Data(data=data))
        headers = trailers(_answer_headers(event.headers, ready)) if modern else []
        await inside.send(h11.EndOfMessage(headers=headers))
        return status

    async def _part(self, outside: End, mask: Mask) -> _Event:
        """Return the next part of an answer; if it does not come soon, pass on what is held back of the last one."""
        if mask.held:
            try:
                async with asyncio.timeout(_HELD):
                    return await outside.event()
            except (OSError, h11.RemoteProtocolError):  # a server that has left is noticed again below
                await self._inside.send(h11.Data(data=mask.end()))
        return await outside.event()

    async def _switch(self, outside: End, event: h11.InformationalResponse, ready: Ready) -> None:
        """Pass on bytes both ways from now on: they are not HTTP any more."""
        headers = [*_answer_headers(event.headers, ready), (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
        await self._inside.send(_informational(event, headers))
        there = _copy(self._inside, outside, lambda data: data)
        back = _copy(outside, self._inside, lambda data: _starred(data, ready))
        ways = [asyncio.ensure_future(way) for way in (there, back)]
        try:
            await asyncio.gather(*ways)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _answer(self, status: int, sentence: str, request: h11.Request | None = None) -> None:
        """Answer in the server's place, if the answer has not begun."""
        if self._inside.http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            raise ConnectionResetError(errno.ECONNRESET, sentence)
        body = f"shed: {sentence}\n{self.hint}\n".encode()
        headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
            ("X-Shed-Egress", "failed" if status == 502 else "refused"),
        ]
        await self._inside.send(h11.Response(status_code=status, headers=headers))
        head_only = request is not None and request.method == b"HEAD"
        await self._inside.send(h11.Data(data=b"" if head_only else body))
        await self._inside.send(h11.EndOfMessage())


def _answer_headers(headers: h11._headers.Headers, ready: Ready) -> Headers:
    return [(name, _starred(unswapped(value, ready.secrets), ready)) for name, value in passed_on(headers.raw_items())]


def _starred(text: bytes, ready: Ready) -> bytes:
    """Return a part of an answer without what must not be in it, such as Basic credentials that were sent."""
    for spelling in ready.masked:
        text = text.replace(spelling, b"*" * len(spelling))
    return text


def _informational(event: h11.InformationalResponse, headers: Headers) -> h11.InformationalResponse:
    return h11.InformationalResponse(status_code=event.status_code, reason=event.reason, headers=headers)


def _mask(answer: h11.Response, ready: Ready) -> Mask:
    """Return what masks the answer's body; one that is compressed cannot be looked through."""
    encoded = dict(answer.headers).get(b"content-encoding", b"identity").strip().lower() != b"identity"
    return Mask(() if encoded else ready.masked)


async def _copy(source: End, target: End, change: Callable[[bytes], bytes]) -> None:
    data = source.http.trailing_data[0]
    while True:
        if data:
            await target.stream.send(change(data))
        if not (data := await source.receive()):
            await target.stream.finish()
            return


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return str(error.reason or error)
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
