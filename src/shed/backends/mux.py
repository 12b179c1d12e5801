"""The host's side of the multiplexer: many streams over one Unix socket that leads to the guest's virtio-serial port.

How a session comes to be (frames are described in `shed.guest.protocol`):

1. The guest speaks first: `MAGIC` and HELLO with a fresh nonce.  Whatever comes before is left over from an earlier session.
2. We answer `MAGIC` and ATTACH with that nonce, and open a stream to port 0, where nothing listens: the guest's refusal shows that it
   took *this* attach, and that the hello was not left over too.
3. When a `MAGIC` comes where a frame should begin, the guest has started over: all streams are cut and we are at 1 again.

Backpressure runs end to end without a buffer that grows: a stream keeps at most the credit it gave the guest, and a writer waits for
the guest's credit and for room in the socket.  Writers wait for room together and then send one frame each, in turn.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from typing import cast

from shed.errors import BackendError
from shed.guest import protocol

log = logging.getLogger(__name__)
HELLO_TIMEOUT = 0.2
"""Seconds for a running agent to say hello after we connected, the first time; then the socket is closed and tried again."""
_RETRY_PAUSE = 0.1
"""Seconds between two connections, the first time: the guest must see the hang-up, or it says no new hello."""
_PATIENCE_GROWTH, _MOST_PATIENCE = 1.5, 5.0
_PAUSE_GROWTH, _LONGEST_PAUSE = 1.1, 0.3
"""Each try gives the guest more time than the one before: it may be booting, or the host has more VMs than processors."""
_CREDIT_STEP = protocol.INITIAL_CREDIT // 4
_SOCKET_HIGH, _SOCKET_LOW = 256 * 1024, 64 * 1024
_PORT_NOBODY = 0
_CLOSE_TIMEOUT = 1.0


class LinkError(BackendError):
    """The link to the agent is not usable."""

    code = "LINK_LOST"


class ProtocolMismatchError(LinkError):
    """The agent speaks a protocol that this version of shed does not know."""

    code = "PROTOCOL_MISMATCH"


class StreamResetError(BackendError):
    """The stream was cut before its end: by the agent, or because the link is gone."""

    code = "STREAM_RESET"


class MuxStream:
    """One stream; see `shed.backends.base.Stream`."""

    __slots__ = ("_changed", "_chunks", "_consumed", "_credit", "_ended_by_guest", "_ended_by_us", "_granted", "_link", "_number", "_reset",
                 "_skip", "_writing")  # fmt: skip

    def __init__(self, link: MuxConnection, number: int) -> None:
        self._link = link
        self._number = number
        self._chunks: deque[bytes] = deque()
        self._skip = 0
        """Bytes of the first chunk that were read already."""
        self._granted = protocol.INITIAL_CREDIT
        self._consumed = 0
        self._credit = protocol.INITIAL_CREDIT
        self._ended_by_guest = False
        self._ended_by_us = False
        self._reset: str | None = None
        self._changed: list[asyncio.Future[None]] = []
        self._writing = asyncio.Lock()

    async def read(self, limit: int = 65536) -> bytes:
        """Return up to `limit` bytes; empty at the guest's end of file.  Raises `StreamResetError`, after what came before the cut."""
        while not self._chunks:
            if self._reset is not None:
                raise self._error()
            if self._ended_by_guest:
                return b""
            await self._change()
        chunk = self._chunks[0]
        if len(chunk) - self._skip <= limit:
            data = chunk[self._skip :] if self._skip else chunk
            self._chunks.popleft()
            self._skip = 0
        else:
            data = chunk[self._skip : self._skip + limit]
            self._skip += len(data)
        self._consume(len(data))
        return data

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`, in one piece even when several tasks write; see `shed.backends.base.Stream`."""
        async with self._writing:
            rest = memoryview(data).cast("B")
            while rest:
                await self._link.room()
                if self._reset is not None:
                    raise self._error()
                if self._ended_by_us:
                    raise StreamResetError("the stream was ended for writing before")
                if not self._credit:
                    await self._change()
                    continue
                size = min(len(rest), self._credit, protocol.MAX_MUX_PAYLOAD)
                self._credit -= size
                self._link.send(protocol.DATA, self._number, rest[:size])
                rest = rest[size:]

    async def write_eof(self) -> None:
        """Say that no more data follows, after all that is being written; reading goes on."""
        async with self._writing:
            if self._reset is None and not self._ended_by_us:
                self._ended_by_us = True
                self._link.send(protocol.EOF, self._number)
                self._forget_when_over()

    def close(self) -> None:
        """Drop the stream and what was not read of it."""
        if self._reset is None and not (self._ended_by_us and self._ended_by_guest):
            self._link.send(protocol.RESET, self._number, b"closed by the host")
            self._link.forget(self._number)
            self.was_reset("it was closed")
        self._chunks.clear()

    # From the link:

    def came(self, data: bytes) -> None:
        """Take bytes of the guest's."""
        if self._ended_by_guest or len(data) > self._granted:
            raise protocol.ProtocolError(f"stream {self._number} carries data beyond its credit, or after its end")
        self._granted -= len(data)
        if data:
            self._chunks.append(data)
            self._wake()

    def credited(self, size: int) -> None:
        """Take the guest's leave to send `size` bytes more."""
        self._credit += size
        self._wake()

    def ended(self) -> None:
        """Take the guest's end of file."""
        self._ended_by_guest = True
        self._forget_when_over()
        self._wake()

    def was_reset(self, reason: str) -> None:
        """Take the end of everything; what came before can still be read."""
        self._reset = reason
        self._wake()

    def _error(self) -> StreamResetError:
        return StreamResetError(f"the stream into the shed was cut: {self._reset}")

    def _consume(self, size: int) -> None:
        self._consumed += size
        if self._consumed >= _CREDIT_STEP and not self._ended_by_guest and self._reset is None:
            self._granted += self._consumed
            self._link.send(protocol.CREDIT, self._number, self._consumed.to_bytes(4, "big"))
            self._consumed = 0

    def _forget_when_over(self) -> None:
        if self._ended_by_us and self._ended_by_guest:
            self._link.forget(self._number)

    async def _change(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changed.append(future)
        await future

    def _wake(self) -> None:
        for future in self._changed:
            if not future.done():
                future.set_result(None)
        self._changed.clear()


class MuxConnection(asyncio.Protocol):
    """A session with one guest; see `shed.backends.base.Connection`.  `connect` makes one.

    `patience` is how many seconds the agent has for its hello and for taking our attach.
    """

    def __init__(self, *, patience: float = HELLO_TIMEOUT) -> None:
        self.hello: dict[str, object] = {}
        loop = asyncio.get_running_loop()
        self.attached: asyncio.Future[None] = loop.create_future()
        """Done when the guest has taken our first attach; has an exception when the link was lost before."""
        self._gone: asyncio.Future[None] = loop.create_future()
        self._patience = patience
        self._room = asyncio.Event()
        self._room.set()
        self._decoder = protocol.MuxDecoder()
        self._streams: dict[int, MuxStream] = {}
        self._number = 0
        self._ping: int | None = None
        self._synchronised = False
        self._greeted = False
        self._hello_timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._failure = LinkError("the link to the agent is gone: the VM closed it")

    async def open(self, port: int) -> MuxStream:
        """Open a stream to the guest's `port`; a port where nothing listens shows as a reset."""
        if not self._greeted or self._gone.done():
            raise LinkError(self._failure.message)
        number = self._open(port)
        stream = self._streams[number] = MuxStream(self, number)
        return stream

    async def wait_closed(self) -> None:
        """Return when the link is gone."""
        await asyncio.shield(self._gone)

    async def close(self) -> None:
        """End the link once what was sent has left; a guest that takes nothing is not waited for."""
        if self._transport is None or self._gone.done():
            return
        self._failure = LinkError("the link to the agent was closed")
        self._cut_streams()
        self._transport.close()
        await asyncio.wait([self._gone], timeout=_CLOSE_TIMEOUT)
        self._transport.abort()

    # From the streams:

    def send(self, kind: int, stream: int, payload: bytes | bytearray | memoryview = b"") -> None:
        """Put a frame on its way; DATA only after `room`."""
        if self._transport is not None and not self._gone.done():
            self._transport.write(protocol.mux_frame(kind, stream, payload))

    async def room(self) -> None:
        """Wait until the socket takes more."""
        while not self._room.is_set():
            await self._room.wait()

    def forget(self, number: int) -> None:
        """Free a stream's number."""
        self._streams.pop(number, None)

    # From the event loop:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Listen for the guest's hello."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_SOCKET_HIGH, low=_SOCKET_LOW)
        self._expect_hello()

    def pause_writing(self) -> None:
        """The socket is full."""
        self._room.clear()

    def resume_writing(self) -> None:
        """The socket takes more."""
        self._room.set()

    def data_received(self, data: bytes) -> None:
        """Take the guest's bytes."""
        self._decoder.feed(data)
        try:
            while self._synchronised or self._decoder.synchronise():
                self._synchronised = True
                try:
                    frame = self._decoder.frame()
                except protocol.ProtocolError:
                    self._start_over()
                    continue
                if frame is None:
                    return
                self._take(*frame)
        except (protocol.ProtocolError, LinkError) as error:
            log.warning("link to an agent is given up: %s", error)
            self.abort(error if isinstance(error, LinkError) else LinkError(f"the agent broke the protocol: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        """The socket is closed: by the VMM, by us, or because its process ended."""
        if error is not None:
            self._failure = LinkError(f"the link to the agent is gone: {error}")
        self._stop_timer()
        self._room.set()
        self._cut_streams()
        if not self.attached.done():
            self.attached.set_exception(self._failure)
            self.attached.exception()  # nobody may be waiting for it
        if not self._gone.done():
            self._gone.set_result(None)

    def _take(self, kind: int, number: int, payload: bytes) -> None:
        if not self._greeted:
            self._take_hello(kind, payload)
            return
        if number == self._ping and kind == protocol.RESET:
            self._ping = None
            self._stop_timer()
            if not self.attached.done():
                self.attached.set_result(None)
            return
        stream = self._streams.get(number)
        if kind == protocol.DATA:
            if stream is not None:  # else it was closed here and the guest does not know yet
                stream.came(payload)
        elif kind == protocol.CREDIT:
            if stream is not None:
                stream.credited(int.from_bytes(payload, "big"))
        elif kind == protocol.EOF:
            if stream is not None:
                stream.ended()
        elif kind == protocol.RESET:
            if stream is not None:
                self.forget(number)
                stream.was_reset(payload.decode(errors="replace") or "by the agent")
        else:
            raise protocol.ProtocolError(f"the agent sent a mux frame of unknown kind {kind}")

    def _take_hello(self, kind: int, payload: bytes) -> None:
        if kind != protocol.HELLO:
            raise protocol.ProtocolError(f"the agent sent a mux frame of kind {kind} before its hello")
        self.hello = _parse_hello(payload)
        self._greeted = True
        if self._transport is not None:
            self._transport.write(protocol.MAGIC + protocol.mux_frame(protocol.ATTACH, 0, str(self.hello["nonce"]).encode()))
        self._ping = self._open(_PORT_NOBODY)

    def _open(self, port: int) -> int:
        self._number = self._number % 0xFFFFFFFF + 1
        while self._number in self._streams:
            self._number = self._number % 0xFFFFFFFF + 1
        self.send(protocol.OPEN, self._number, port.to_bytes(4, "big"))
        return self._number

    def _start_over(self) -> None:
        """Bytes that are no frame: the guest began a new session, or its old one is lost."""
        log.info("an agent's session ended unexpectedly; waiting for its next hello")
        self._synchronised = self._greeted = False
        self._failure = LinkError("the agent started over")
        self._cut_streams()
        self._expect_hello()

    def _expect_hello(self) -> None:
        self._stop_timer()
        silent = LinkError("the agent says no hello")
        self._hello_timer = asyncio.get_running_loop().call_later(self._patience, self.abort, silent)

    def _stop_timer(self) -> None:
        if self._hello_timer is not None:
            self._hello_timer.cancel()
            self._hello_timer = None

    def abort(self, failure: LinkError) -> None:
        """End the link at once; `failure` is what everybody who uses it gets."""
        self._failure = failure
        if self._transport is not None:
            self._transport.abort()

    def _cut_streams(self) -> None:
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.was_reset(str(self._failure))


def _parse_hello(payload: bytes) -> dict[str, object]:
    try:
        hello = json.loads(payload)
    except ValueError:
        raise protocol.ProtocolError("the agent's hello is not JSON") from None
    if not isinstance(hello, dict) or not isinstance(hello.get("nonce"), str):
        raise protocol.ProtocolError("the agent's hello has no nonce")
    version = hello.get("protocol")
    if version not in {protocol.PROTOCOL, protocol.PROTOCOL - 1} or isinstance(version, bool):
        raise ProtocolMismatchError(
            f"the agent speaks protocol {version!r}, this server {protocol.PROTOCOL - 1} and {protocol.PROTOCOL}",
            hint="boot kit and shed do not belong together: `shed image bootkit build`, then build the image again",
        )
    return hello


async def connect(path: str) -> MuxConnection:
    """Return a session with the guest whose port is the Unix socket `path`, however often it takes: the guest may still be booting.

    The caller limits the time.  Raises `ProtocolMismatchError`, which no further try would change.
    """
    loop = asyncio.get_running_loop()
    patience, pause = HELLO_TIMEOUT, _RETRY_PAUSE
    while True:
        try:
            return await _try(loop, path, patience)
        except ProtocolMismatchError:
            raise
        except (OSError, LinkError) as error:
            log.debug("no agent at %s yet: %s", path, error)
        await asyncio.sleep(pause)
        patience, pause = min(patience * _PATIENCE_GROWTH, _MOST_PATIENCE), min(pause * _PAUSE_GROWTH, _LONGEST_PAUSE)


async def _try(loop: asyncio.AbstractEventLoop, path: str, patience: float) -> MuxConnection:
    _, link = await loop.create_unix_connection(lambda: MuxConnection(patience=patience), path)
    try:
        await asyncio.shield(link.attached)
    except BaseException:
        link.abort(LinkError("nobody waits for the agent any more"))
        raise
    return link
