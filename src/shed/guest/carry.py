"""Carrying what a file descriptor gives into a stream, with no copy on the way but the kernel's."""

from __future__ import annotations

import fcntl

from shed.guest import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.guest.loop import Watch
    from shed.guest.mux import Stream

_LITTLE = 4096
"""Bytes of a descriptor's first reads; most never give more, and need no larger buffer."""

_PIPE_SIZE = 256 * 1024
"""Bytes that fit into a pipe which carries much: switching between a command and us for every 64 KiB is slow."""
_SET_PIPE_SIZE = 1031
"""fcntl F_SETPIPE_SZ, linux/fcntl.h."""


class Carrier:
    """A descriptor on its way into a stream: `read`, then `send`.

    With `kind` the bytes travel in exec frames of that type.  One frame fills at most one mux frame.
    """

    def __init__(self, watch: Watch, stream: Stream, kind: int | None = None) -> None:
        self._watch = watch
        self._stream = stream
        self._kind = kind
        self._start = protocol.MUX_HEADER + (0 if kind is None else protocol.FRAME_HEADER)
        self._buffer = memoryview(bytearray(self._start + _LITTLE))
        self._filled = 0

    async def read(self, most: int | None = None) -> int:
        """Read what is there, `most` bytes of it; return how many, 0 at the end of file.  Raises `OSError`."""
        end = len(self._buffer) if most is None else min(len(self._buffer), self._start + most)
        self._filled = await self._watch.read_into(self._buffer[self._start : end])
        return self._filled

    async def send(self) -> None:
        """Send what was read.  Raises `StreamCutError`."""
        frame = self._buffer[: self._start + self._filled]
        if self._kind is not None:
            protocol.put_exec_header(frame[protocol.MUX_HEADER :], self._kind, self._filled)
        await self._stream.write_frame(frame)
        if len(frame) == len(self._buffer) == self._start + _LITTLE:
            self._buffer = memoryview(bytearray(protocol.MUX_HEADER + protocol.MAX_MUX_PAYLOAD))
            enlarge(self._watch.fd)


def enlarge(fd: int) -> None:
    """Let more fit into a pipe; nothing happens to what is none."""
    try:
        fcntl.fcntl(fd, _SET_PIPE_SIZE, _PIPE_SIZE)
    except OSError:
        pass
