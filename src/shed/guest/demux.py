"""Taking apart what comes from the host: mux frames, without collecting the data in them.  No I/O here.

Data is handed on as it comes, in pieces that are not copied; all other frames are short, and handed on whole.
"""

from __future__ import annotations

from shed.guest import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Demux:
    """Calls `data` with (stream, piece) for bytes of a stream, `frame` with (kind, stream, payload) for the rest.

    A piece is good until `data` returns.
    """

    __slots__ = ("_begun", "_data", "_frame", "_left", "_stream")

    def __init__(self, frame: Callable[[int, int, bytes], None], data: Callable[[int, memoryview], None]) -> None:
        self._frame = frame
        self._data = data
        self._begun = bytearray()
        """The beginning of a frame: its header, and the payload unless it is data."""
        self._stream = self._left = 0
        """Of the data frame that is under way: its stream, and how much of it is still to come."""

    def feed(self, received: memoryview) -> None:
        """Take received bytes.  Raises `ProtocolError`."""
        at, end = 0, len(received)
        while at < end:
            if self._left:
                piece = received[at : at + self._left]
                self._left -= len(piece)
                at += len(piece)
                self._data(self._stream, piece)
            else:
                at += self._collect(received[at:])

    def _collect(self, received: memoryview) -> int:
        """Take what belongs to a header, or to a frame that is not data; return how many bytes that were."""
        wanted = protocol.MUX_HEADER
        if len(self._begun) >= wanted:
            wanted += protocol.mux_header(self._begun)[2]
        piece = received[: wanted - len(self._begun)]
        self._begun += piece
        if len(self._begun) < wanted:
            return len(piece)
        kind, stream, length = protocol.mux_header(self._begun)
        if length > protocol.MAX_MUX_PAYLOAD:
            raise protocol.ProtocolError(f"mux frame of {length} bytes, {protocol.MAX_MUX_PAYLOAD} is the most")
        if kind == protocol.DATA:
            self._stream, self._left = stream, length
        elif len(self._begun) < protocol.MUX_HEADER + length:
            return len(piece)
        else:
            self._frame(kind, stream, bytes(self._begun[protocol.MUX_HEADER :]))
        self._begun.clear()
        return len(piece)
