"""Exec frames on a stream: reading them one by one."""

from __future__ import annotations

from shed.guest import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.guest.mux import Stream


class FrameReader:
    """Reads the frames of a stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._decoder = protocol.FrameDecoder()

    async def next(self) -> tuple[int, bytes] | None:
        """Return the next (type, payload), or None when the host has ended its side.

        Raises `StreamCutError`, and `ProtocolError` for a frame that is too long or cut off by the end.
        """
        while (frame := self._decoder.frame()) is None:
            data = await self._stream.read()
            if not data:
                if self._decoder.pending():
                    raise protocol.ProtocolError("the stream ends inside a frame")
                return None
            self._decoder.feed(data)
        return frame
