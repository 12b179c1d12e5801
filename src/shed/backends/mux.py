"""The host's side of the multiplexer: many streams over one Unix socket that leads to the guest's virtio-serial port.

How a session comes to be (frames are described in `shed.guest.protocol`):

1. The guest speaks first: `MAGIC` and HELLO with a fresh nonce.  All that comes before is left over from an earlier
   session.
2. We answer `MAGIC` and ATTACH with that nonce, and open a stream to port 0, where nothing listens.  The guest's
   refusal shows that it took *this* attach, and that the hello was not left over too.
3. When a `MAGIC` comes where a frame should begin, the guest has started over: all streams are cut, and we are at 1
   again.

Backpressure runs end to end without a buffer that grows: a stream keeps at most the credit it gave the guest, and a
writer waits for the guest's credit and for room in the socket.  Writers wait for room together and then send one frame
each, in turn.

A guest is not trusted.  Its link gets a bounded share of each turn of the event loop, whatever it sends, and is dropped
when that is more nonsense than its `LinkBudget` allows.
"""

from __future__ import annotations

import asyncio
import logging
from typing import cast

from shed.backends.base import LinkAbusedError, LinkError
from shed.backends.link_budget import LinkBudget
from shed.backends.stream import MuxStream
from shed.guest import protocol
from shed.untrusted import MOST_TEXT, load_object, told

log = logging.getLogger(__name__)
HELLO_TIMEOUT = 0.5
"""Seconds for a running agent to say hello after we connected, and to take our attach, the first time; then the socket
is closed and tried again.  An emulated guest that was just restored takes 0.1 to 0.2, on a busy host 0.3.
"""
_RETRY_PAUSE = 0.1
"""Seconds between two connections, the first time: the guest must see the hang-up, or it says no new hello."""
_PATIENCE_GROWTH, _MOST_PATIENCE = 1.5, 5.0
_PAUSE_GROWTH, _LONGEST_PAUSE = 1.1, 0.3
"""Each try gives the guest more time than the one before: it may be booting, or the host has more VMs than
processors.
"""
_SOCKET_HIGH, _SOCKET_LOW = 256 * 1024, 64 * 1024
_READ = 128 * 1024
_PORT_NOBODY = 0
_CLOSE_TIMEOUT = 1.0
FRAMES_PER_TURN = 128
"""Frames of one guest that are handled before others have a turn; 128 of them take a third of a millisecond."""
MOST_UNSENT = 4 << 20
"""Bytes on their way to a guest that takes none; data waits for room much earlier."""
_LONGEST_NONCE = 128


class ProtocolMismatchError(LinkError):
    """The agent speaks a protocol that this version of shed does not know."""

    code = "PROTOCOL_MISMATCH"


class MuxConnection(asyncio.BufferedProtocol):
    """A session with one guest; see `shed.backends.base.Connection`.  `connect` makes one.

    `patience` is how many seconds the agent has for its hello and for taking our attach; `budget` is what the guest may
    cost.
    """

    def __init__(self, *, patience: float = HELLO_TIMEOUT, budget: LinkBudget | None = None) -> None:
        self.hello: dict[str, object] = {}
        loop = asyncio.get_running_loop()
        self.attached: asyncio.Future[None] = loop.create_future()
        """Done when the guest has taken our first attach; has an exception when the link was lost before."""
        self._gone: asyncio.Future[None] = loop.create_future()
        self._patience = patience
        self._budget = budget or LinkBudget()
        self._room = asyncio.Event()
        self._room.set()
        self._decoder = protocol.MuxDecoder()
        self._inbox = memoryview(bytearray(_READ))
        self._streams: dict[int, MuxStream] = {}
        self._number = 0
        self._ping: int | None = None
        self._synchronised = False
        self._greeted = False
        self._hello_timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._failure: LinkError = LinkError("the link to the agent is gone: the VM closed it")
        self._paused = False

    async def open(self, port: int) -> MuxStream:
        """Open a stream to the guest's `port`; a port where nothing listens shows as a reset."""
        if not self._greeted or self._gone.done():
            raise type(self._failure)(self._failure.message)
        number = self._open(port)
        stream = self._streams[number] = MuxStream(self, number)
        return stream

    async def wait_closed(self) -> LinkAbusedError | None:
        """Return when the link is gone; see `shed.backends.base.Connection`."""
        await asyncio.shield(self._gone)
        return self._failure if isinstance(self._failure, LinkAbusedError) else None

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
        if self._transport is None or self._gone.done():
            return
        self._transport.write(protocol.mux_frame(kind, stream, payload))
        if not self._room.is_set() and self._transport.get_write_buffer_size() > MOST_UNSENT:
            self.abort(LinkAbusedError("the guest takes nothing of what it asks for"))

    async def room(self) -> None:
        """Wait until the socket takes more."""
        while not self._room.is_set():
            await self._room.wait()

    def forget(self, number: int, granted: int = 0) -> None:
        """Free a stream's number; `granted` bytes of its data may still come."""
        self._streams.pop(number, None)
        self._budget.closed(granted)

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

    def get_buffer(self, sizehint: int) -> memoryview:
        """Have the guest's bytes put where the last ones were: memory that is new each time costs more than they do."""
        return self._inbox

    def buffer_updated(self, nbytes: int) -> None:
        """Take what is in the buffer."""
        self.data_received(self._inbox[:nbytes])

    def data_received(self, data: bytes | memoryview) -> None:
        """Take the guest's bytes."""
        self._decoder.feed(data)
        self._work()

    def _work(self) -> None:
        """Handle so many of the frames that are here.

        While there are more, nothing more is read, and others have their turn.
        """
        assert self._transport is not None
        if self._transport.is_closing():
            return
        try:
            try:
                more = self._take_frames()
            except protocol.ProtocolError as error:
                if not self.attached.done():  # it may be what another session left over
                    self._budget.broken(str(error))
                    raise LinkError(f"what the agent said makes no sense: {error}") from None
                raise LinkAbusedError(f"the agent broke the protocol: {error}") from None
        except LinkError as error:
            self.abort(error)
            return
        if more != self._paused:
            self._paused = more
            (self._transport.pause_reading if more else self._transport.resume_reading)()
        if more:
            asyncio.get_running_loop().call_soon(self._work)

    def _take_frames(self) -> bool:
        """Take frames; return whether there are more than may be taken in one go."""
        for _ in range(FRAMES_PER_TURN):
            if not self._synchronised:
                before = self._decoder.pending()
                self._synchronised = self._decoder.synchronise()
                self._budget.noise(before - self._decoder.pending())
                if not self._synchronised:
                    return False
            try:
                frame = self._decoder.frame()
            except protocol.ProtocolError as error:
                self._start_over(str(error))
                continue
            if frame is None:
                return False
            self._take(*frame)
        return True

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
        if kind == protocol.DATA and stream is not None and payload:
            stream.came(payload)
            return
        if kind == protocol.DATA:  # empty, or for a stream that was closed here, which the guest does not know yet
            self._budget.late(len(payload))
            return
        self._budget.idle(len(payload))
        if kind == protocol.CREDIT:
            if stream is not None:
                stream.credited(protocol.counted(payload))
        elif kind == protocol.EOF:
            if stream is not None:
                stream.ended()
        elif kind == protocol.RESET:
            if stream is not None:
                self.forget(number)
                stream.was_reset(payload[:MOST_TEXT].decode(errors="replace") or "by the agent")
        else:
            raise protocol.ProtocolError(f"the agent sent a mux frame of unknown kind {kind}")

    def _take_hello(self, kind: int, payload: bytes) -> None:
        if kind != protocol.HELLO:
            raise protocol.ProtocolError(f"the agent sent a mux frame of kind {kind} before its hello")
        self.hello = _parse_hello(payload)
        self._greeted = True
        if self._transport is not None:
            self._transport.write(
                protocol.MAGIC + protocol.mux_frame(protocol.ATTACH, 0, str(self.hello["nonce"]).encode())
            )
        self._ping = self._open(_PORT_NOBODY)

    def _open(self, port: int) -> int:
        self._number = self._number % 0xFFFFFFFF + 1
        while self._number in self._streams:
            self._number = self._number % 0xFFFFFFFF + 1
        self.send(protocol.OPEN, self._number, port.to_bytes(4, "big"))
        return self._number

    def _start_over(self, why: str) -> None:
        """Bytes that are no frame: the guest began a new session, or its old one is lost."""
        self._budget.broken(why)
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
        hello = load_object(payload)
    except ValueError as error:
        raise protocol.ProtocolError(f"the agent's hello: {error}") from None
    nonce = hello.get("nonce")
    if not isinstance(nonce, str) or len(nonce) > _LONGEST_NONCE:
        raise protocol.ProtocolError("the agent's hello has no nonce")
    version = hello.get("protocol")
    if type(version) is not int or version not in {protocol.PROTOCOL, protocol.PROTOCOL - 1}:
        raise ProtocolMismatchError(
            f"the agent speaks protocol {told(version)}, this server {protocol.PROTOCOL - 1} and {protocol.PROTOCOL}",
            hint="boot kit and shed do not belong together: `shed image bootkit build`, then build the image again",
        )
    return hello


async def connect(path: str) -> MuxConnection:
    """Return a session with the guest whose port is the Unix socket `path`.

    It tries as often as needed, as the guest may still be booting.

    The caller limits the time.  Raises `ProtocolMismatchError`, which no further try would change, and
    `LinkAbusedError`.
    """
    loop = asyncio.get_running_loop()
    patience, pause, budget = HELLO_TIMEOUT, _RETRY_PAUSE, LinkBudget()
    while True:
        try:
            return await _try(loop, path, patience, budget)
        except (ProtocolMismatchError, LinkAbusedError):
            raise
        except (OSError, LinkError) as error:
            log.debug("no agent at %s yet: %s", path, error)
        await asyncio.sleep(pause)
        patience, pause = min(patience * _PATIENCE_GROWTH, _MOST_PATIENCE), min(pause * _PAUSE_GROWTH, _LONGEST_PAUSE)


async def _try(loop: asyncio.AbstractEventLoop, path: str, patience: float, budget: LinkBudget) -> MuxConnection:
    _, link = await loop.create_unix_connection(lambda: MuxConnection(patience=patience, budget=budget), path)
    try:
        await asyncio.shield(link.attached)
    except BaseException:
        link.abort(LinkError("nobody waits for the agent any more"))
        raise
    return link
