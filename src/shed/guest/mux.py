"""The guest's side of the multiplexer: one byte channel to the host, many streams (see `protocol` for the frames).

A session begins when the host answers our hello with its nonce, and ends when the host hangs up or breaks the protocol;
then all its streams are cut and a new hello is said.  Memory stays bounded: a stream holds at most the credit it gave,
and who writes waits while `_OUTPUT_LIMIT` bytes are on their way.
"""

from __future__ import annotations

import os
from _collections import deque  # type: ignore[import-not-found]

from shed.guest import protocol
from shed.guest.demux import Demux
from shed.guest.tasks import Cancelled, Event, Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from typing import Any, Protocol

    from shed.guest.loop import Loop

    class Channel(Protocol):
        """The way to the host; `shed.guest.transport.Port` says what empty reads mean."""

        async def read(self) -> memoryview:
            """Return what has come, good until the next read; empty when the host has hung up."""
            ...

        def write_now(self, data: memoryview) -> int:
            """Send what can be sent without waiting; return how many bytes."""
            ...

        async def write(self, data: bytes | bytearray | memoryview) -> None:
            """Send all of `data`; waits for a host."""
            ...

    Serve = Callable[["Stream"], Coroutine[Any, Any, None]]

_OUTPUT_LIMIT = 128 * 1024
"""Bytes waiting for the channel above which writers wait."""
_INPUT_STOPS = 4 * _OUTPUT_LIMIT
"""Bytes waiting for the channel above which nothing more is read: a host that causes answers must also take them."""
_CREDIT_STEP, _GROWN_STEP = protocol.INITIAL_CREDIT // 2, protocol.GROWN_CREDIT // 4
"""Consumed bytes are told to the host when they are that many: it never runs out, and small reads cause no traffic.
The first time, and later.
"""
_SMALL = 4096
"""Bytes of data below which they are put together."""
_NONBLOCKING_RANDOM = 4
"""getrandom flag GRND_INSECURE: a nonce need not be secret, and hello must not wait for entropy."""


class StreamCutError(Exception):
    """The stream ended before its time: the host reset it, or the whole session is gone."""


class Stream:
    """A byte stream to the host, with half-close and backpressure both ways."""

    def __init__(self, session: Session, number: int) -> None:
        self._session = session
        self._number = number
        self._received: deque[bytearray] = deque()
        self._granted = protocol.INITIAL_CREDIT
        self._consumed = 0
        self._step = _CREDIT_STEP
        self._credit = protocol.INITIAL_CREDIT
        self._credit_came = Event()
        self._data_came = Event()
        self._writing = Lock()
        self._ended_by_host = False
        self._ended_by_us = False
        self._drained = False
        self._cut: str | None = None
        self.gone = Event()
        """Set once the stream was cut."""

    async def read(self) -> bytes | bytearray:
        """Return what has come, at least one byte; empty once the host has ended its side.  Raises `StreamCutError`."""
        while True:
            if self._cut is not None:
                raise StreamCutError(self._cut)
            if self._received:
                data: bytearray = self._received.popleft()
                self._consume(len(data))
                return data
            if self._ended_by_host:
                return b""
            self._data_came.clear()
            await self._data_came.wait()

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data` in one piece, after what others are writing; returns when it is on its way.

        Raises `StreamCutError`.
        """
        async with self._writing:
            await self._write(memoryview(data))

    async def write_frame(self, frame: memoryview) -> None:
        """Send what is behind the first `MUX_HEADER` bytes of `frame`, which are for the header; otherwise as `write`.

        It is the caller's again when this returns, and is not copied if it goes at once.
        """
        size = len(frame) - protocol.MUX_HEADER
        async with self._writing:
            await self._session.room()
            if self._credit < size or self._cut is not None:
                await self._write(frame[protocol.MUX_HEADER :])
                return
            self._credit -= size
            protocol.put_mux_header(frame, protocol.DATA, self._number, size)
            self._session.send_frame(frame)

    async def _write(self, rest: memoryview) -> None:
        while rest:
            if self._cut is not None:
                raise StreamCutError(self._cut)
            if self._credit <= 0:
                self._credit_came.clear()
                await self._credit_came.wait()
                continue
            await self._session.room()
            size = min(len(rest), self._credit, protocol.MAX_MUX_PAYLOAD)
            if size > 0 and self._cut is None:
                self._credit -= size
                self._session.send(protocol.DATA, self._number, rest[:size])
                rest = rest[size:]

    def end(self) -> None:
        """Send no more; reading goes on."""
        if not self._ended_by_us and self._cut is None:
            self._ended_by_us = True
            self._session.send(protocol.EOF, self._number)
            self._forget_when_over()

    def reset(self, reason: str) -> None:
        """Cut the stream, both ways, and tell the host why; nothing happens when it is over."""
        if self._cut is None and not (self._ended_by_us and self._ended_by_host):
            self._session.send(protocol.RESET, self._number, reason.encode()[: protocol.MAX_MUX_PAYLOAD])
            self._session.forget(self._number)
            self.cut(reason)

    def drain(self) -> None:
        """Throw away what the host still sends: nobody reads it."""
        self._drained = True
        if self._received and self._cut is None:
            self._consume(sum(map(len, self._received)))
            self._received.clear()

    # From the session:

    def came(self, data: memoryview) -> None:
        """Take bytes of the host's."""
        if self._ended_by_host or len(data) > self._granted:
            self.reset("data beyond the credit, or after the end")
            return
        self._granted -= len(data)
        if self._drained:
            self._consume(len(data))
            return
        if self._received and len(self._received[-1]) < _SMALL:
            self._received[-1].extend(data)
        else:
            self._received.append(bytearray(data))
        self._data_came.set()

    def credit(self, size: int) -> None:
        """Take the host's leave to send `size` bytes more."""
        self._credit += size
        self._credit_came.set()

    def ended(self) -> None:
        """Take the host's end of file."""
        self._ended_by_host = True
        self._data_came.set()
        self._forget_when_over()

    def cut(self, reason: str) -> None:
        """End the stream at once."""
        if self._cut is None:
            self._cut = reason
            self._received.clear()
            self._data_came.set()
            self._credit_came.set()
            self.gone.set()

    def _consume(self, size: int) -> None:
        self._consumed += size
        if self._consumed >= self._step and not self._ended_by_host:
            credit = self._consumed
            if self._step == _CREDIT_STEP:  # it carries much
                self._step = _GROWN_STEP
                credit += protocol.GROWN_CREDIT - protocol.INITIAL_CREDIT
            self._granted += credit
            self._session.send(protocol.CREDIT, self._number, credit.to_bytes(4, "big"))
            self._consumed = 0

    def _forget_when_over(self) -> None:
        if self._ended_by_us and self._ended_by_host:
            self._session.forget(self._number)


class Session:
    """One attachment of a host: its streams and the bytes on their way to it."""

    def __init__(self, loop: Loop, port: Channel, services: Mapping[int, Serve]) -> None:
        self._loop = loop
        self._port = port
        self._services = services
        self._streams: dict[int, Stream] = {}
        self._output = bytearray()
        self._in_flight = False
        self._output_came = Event()
        self._room_came = Event()
        self._writers = Lock()
        self.ended = False

    def send(self, kind: int, stream: int, payload: bytes | bytearray | memoryview = b"") -> None:
        """Put a frame on its way; DATA only after `room`."""
        if not self.ended:
            self._output += protocol.mux_frame(kind, stream, payload)
            self._output_came.set()

    def send_frame(self, frame: memoryview) -> None:
        """Put a whole frame on its way, without a copy if it goes at once; after `room`."""
        if self.ended:
            return
        if not self._output and not self._in_flight:
            try:
                frame = frame[self._port.write_now(frame) :]
            except OSError:
                return  # the input side sees it too
        if frame:
            self._output += frame
            self._output_came.set()

    async def room(self) -> None:
        """Wait until the channel can take another frame.  Streams that wait take turns."""
        if len(self._output) < _OUTPUT_LIMIT and not self._writers.held:
            return
        async with self._writers:
            while len(self._output) >= _OUTPUT_LIMIT and not self.ended:
                self._room_came.clear()
                await self._room_came.wait()

    async def flushed(self, seconds: float) -> None:
        """Wait until everything sent so far has left the guest, `seconds` at most."""
        deadline = self._loop.now() + seconds
        while (self._output or self._in_flight) and not self.ended and (left := deadline - self._loop.now()) > 0:
            self._room_came.clear()
            await self._room_came.wait(left)

    async def pump_output(self) -> None:
        """Carry output to the channel until the host is gone."""
        while not self.ended:
            if not self._output:
                self._output_came.clear()
                await self._output_came.wait()
                continue
            output, self._output = self._output, bytearray()
            self._in_flight = True
            self._room_came.set()
            try:
                await self._port.write(output)
            except OSError:
                return  # the input side sees it too
            self._in_flight = False
            self._room_came.set()

    async def pump_input(self, rest: bytes) -> None:
        """Take the host's frames until it is gone; `rest` came behind its attach.  Raises `ProtocolError`."""
        demux = Demux(self._take, self._take_data)
        data = memoryview(rest)
        while True:
            demux.feed(data)
            if len(self._output) > _INPUT_STOPS:
                await self.room()
            data = await self._port.read()
            if not data:
                return

    def forget(self, number: int) -> None:
        """Free a stream's number."""
        self._streams.pop(number, None)

    def end(self, reason: str) -> None:
        """Cut all streams."""
        self.ended = True
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.cut(reason)
        self._output.clear()
        self._output_came.set()
        self._room_came.set()

    def _take_data(self, number: int, piece: memoryview) -> None:
        stream = self._streams.get(number)
        if stream is not None:  # else it was cut by us a moment ago: the host does not know yet
            stream.came(piece)

    def _take(self, kind: int, number: int, payload: bytes) -> None:
        stream = self._streams.get(number)
        if kind == protocol.OPEN:
            if stream is not None or len(payload) != 4:
                raise protocol.ProtocolError(f"stream {number} cannot be opened")
            self._open(number, int.from_bytes(payload, "big"))
        elif kind in {protocol.CREDIT, protocol.EOF, protocol.RESET}:
            if stream is None:
                return  # cut by us a moment ago: the host does not know yet
            if kind == protocol.CREDIT:
                stream.credit(int.from_bytes(payload, "big"))
            elif kind == protocol.EOF:
                stream.ended()
            else:
                self.forget(number)
                stream.cut(payload.decode(errors="replace") or "reset by the host")
        else:
            raise protocol.ProtocolError(f"unknown mux frame {kind}")

    def _open(self, number: int, port: int) -> None:
        serve = self._services.get(port)
        stream = self._streams[number] = Stream(self, number)
        if serve is None:
            stream.reset(f"nothing listens on port {port}")
        else:
            self._loop.spawn(_serve(serve, stream), name=f"stream {number} to port {port}")


async def _serve(serve: Serve, stream: Stream) -> None:
    """Run a service on a stream; afterwards the stream is ended, or cut when the service failed."""
    try:
        await serve(stream)
    except StreamCutError:
        return
    except protocol.ProtocolError as error:
        stream.reset(f"protocol error: {error}")
        return
    except (Exception, Cancelled):
        stream.reset("the agent failed; see the console")
        raise
    stream.drain()
    stream.end()


async def serve_port(loop: Loop, port: Channel, services: Mapping[int, Serve], hello: Callable[[str], bytes]) -> None:
    """Serve hosts one after the other, for ever.  `hello` makes the HELLO payload for a nonce."""
    while True:
        nonce = os.getrandom(16, _NONBLOCKING_RANDOM).hex()
        await port.write(protocol.MAGIC + protocol.mux_frame(protocol.HELLO, 0, hello(nonce)))
        rest = await _attached(port, protocol.MAGIC + protocol.mux_frame(protocol.ATTACH, 0, nonce.encode()))
        if rest is None:
            continue
        session = Session(loop, port, services)
        output = loop.spawn(session.pump_output(), name="mux output")
        reason = "the host hung up"
        try:
            await session.pump_input(rest)
        except protocol.ProtocolError as error:
            reason = f"protocol error: {error}"
            loop.log(reason)
        except OSError as error:
            reason = f"the port failed: {error}"
            loop.log(reason)
        session.end(reason)
        output.cancel()
        await output.done.wait()


async def _attached(port: Channel, answer: bytes) -> bytes | None:
    """Throw bytes away until the host's `answer` to our hello.

    Return what follows it, or None when the host hangs up first.
    """
    received = bytearray()
    while True:
        data = await port.read()
        if not data:
            return None
        received += data
        at = received.find(answer)
        if at >= 0:
            return bytes(received[at + len(answer) :])
        del received[: max(0, len(received) - len(answer) + 1)]
