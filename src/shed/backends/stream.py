"""One stream of the multiplexer, seen from the host: what `shed.backends.base.Stream` asks for, over a link."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from shed.errors import BackendError
from shed.guest import protocol
from shed.untrusted import told

_CREDIT_STEP, _GROWN_STEP = protocol.INITIAL_CREDIT // 4, protocol.GROWN_CREDIT // 4
"""Bytes that were read when the guest is told, the first time and later."""
_MOST_CREDIT = 1 << 30
"""Bytes that a guest can let us send; an honest one never has more than `GROWN_CREDIT` open."""
_SMALL = 4096
"""Bytes of data below which they are put together, so that a guest that sends single bytes costs neither memory nor a
read each.
"""


class StreamResetError(BackendError):
    """The stream was cut before its end: by the agent, or because the link is gone."""

    code = "STREAM_RESET"


class Link(Protocol):
    """What carries a stream's frames."""

    def send(self, kind: int, stream: int, payload: bytes | bytearray | memoryview = b"") -> None:
        """Put a frame on its way; DATA only after `room`."""
        ...

    async def room(self) -> None:
        """Wait until more can be sent."""
        ...

    def forget(self, number: int, granted: int = 0) -> None:
        """Free a stream's number; `granted` bytes of its data may still come."""
        ...


class MuxStream:
    """One stream; see `shed.backends.base.Stream`."""

    __slots__ = (
        "_changed", "_chunks", "_consumed", "_credit", "_ended_by_guest", "_ended_by_us", "_granted", "_link",
        "_number", "_reset", "_skip", "_step", "_writing",
    )  # fmt: skip

    def __init__(self, link: Link, number: int) -> None:
        self._link = link
        self._number = number
        self._chunks: deque[bytes | bytearray] = deque()
        self._skip = 0
        """Bytes of the first chunk that were read already."""
        self._granted = protocol.INITIAL_CREDIT
        self._consumed = 0
        self._step = _CREDIT_STEP
        self._credit = protocol.INITIAL_CREDIT
        self._ended_by_guest = False
        self._ended_by_us = False
        self._reset: str | None = None
        self._changed: list[asyncio.Future[None]] = []
        self._writing = asyncio.Lock()

    async def read(self, limit: int = 65536) -> bytes:
        """Return up to `limit` bytes; empty at the guest's end of file.

        Raises `StreamResetError`, after what came before the cut.
        """
        if self._chunks:
            await asyncio.sleep(0)  # who takes apart what is there already lets others have a turn
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
        return bytes(data)

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
            self._link.forget(self._number, self._granted)
            self.was_reset("it was closed")
        self._chunks.clear()

    # From the link:

    def came(self, data: bytes) -> None:
        """Take bytes of the guest's."""
        if self._ended_by_guest or len(data) > self._granted:
            raise protocol.ProtocolError(f"stream {self._number} carries data beyond its credit, or after its end")
        self._granted -= len(data)
        if len(data) >= _SMALL:
            self._chunks.append(data)
        elif self._chunks and isinstance(last := self._chunks[-1], bytearray) and len(last) < protocol.MAX_MUX_PAYLOAD:
            last += data
        elif data:
            self._chunks.append(bytearray(data))
        self._wake()

    def credited(self, size: int) -> None:
        """Take the guest's leave to send `size` bytes more."""
        self._credit += size
        if self._credit > _MOST_CREDIT:
            raise protocol.ProtocolError(f"stream {self._number} may send {self._credit} bytes")
        self._wake()

    def ended(self) -> None:
        """Take the guest's end of file."""
        self._ended_by_guest = True
        self._forget_when_over()
        self._wake()

    def was_reset(self, reason: str) -> None:
        """Take the end of everything; what came before can still be read."""
        self._reset = told(reason)
        self._wake()

    def _error(self) -> StreamResetError:
        return StreamResetError(f"the stream into the shed was cut: {self._reset}")

    def _consume(self, size: int) -> None:
        self._consumed += size
        if self._consumed >= self._step and not self._ended_by_guest and self._reset is None:
            credit = self._consumed
            if self._step == _CREDIT_STEP:  # it carries much
                self._step = _GROWN_STEP
                credit += protocol.GROWN_CREDIT - protocol.INITIAL_CREDIT
            self._granted += credit
            self._link.send(protocol.CREDIT, self._number, credit.to_bytes(4, "big"))
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
