"""Exec frames on a stream: reading them one by one."""

from __future__ import annotations

from shed.guest import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.guest.mux import Stream


class FrameReader:
    """Reads the frames of a stream; data (DATA_FRAME) in the pieces in which it comes."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._received = memoryview(b"")
        self._left = 0
        """Bytes of a data frame that are still to come."""

    async def next(self) -> tuple[int, bytes | memoryview] | None:
        """Return the next (type, payload), or None when the host has ended its side.

        Raises `StreamCutError`, and `ProtocolError` for a frame that is too long or cut off by the end.
        """
        if not self._left:
            if not await self._receive(protocol.FRAME_HEADER):
                return None
            kind, length = protocol.exec_header(self._received)
            if length > protocol.MAX_PAYLOAD:
                raise protocol.ProtocolError(f"frame of {length} bytes, {protocol.MAX_PAYLOAD} is the most")
            self._received = self._received[protocol.FRAME_HEADER :]
            if kind != protocol.DATA_FRAME or not length:
                await self._receive(length, inside=True)
                return kind, bytes(self._take(length))
            self._left = length
        if not self._received:
            await self._receive(1, inside=True)
        piece = self._take(self._left)
        self._left -= len(piece)
        return protocol.DATA_FRAME, piece

    def _take(self, most: int) -> memoryview:
        piece, self._received = self._received[:most], self._received[most:]
        return piece

    async def _receive(self, size: int, *, inside: bool = False) -> bool:
        """Have at least `size` bytes; False when the stream has ended, which it may not `inside` a frame."""
        if len(self._received) >= size:
            return True
        parts = [self._received]
        missing = size - len(self._received)
        while missing > 0:
            data = await self._stream.read()
            if not data:
                if inside or any(parts):
                    raise protocol.ProtocolError("the stream ends inside a frame")
                return False
            parts.append(memoryview(data))
            missing -= len(data)
        self._received = memoryview(b"".join(parts)) if any(parts[:-1]) else parts[-1]
        return True
