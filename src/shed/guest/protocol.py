"""The bytes between host and guest: the multiplexer's frames, and the frames of an exec stream.  No I/O here.

Two layers:

* **Mux frames** share one virtio-serial port between many streams.  A session starts with a resync, because either side
  can vanish in the middle of a frame: the guest speaks first (`MAGIC` and a HELLO with a fresh nonce), the host answers
  `MAGIC` and an ATTACH with that nonce, and each side throws away all bytes before the other's `MAGIC`.  Backends with
  vsock need no mux.
* **Exec frames** travel inside one stream: type (1 byte), length (4 bytes, big-endian), payload.

The guest imports this file on its way to hello, so it imports nothing but `struct`: no typing, no dataclasses, no json.
"""

from __future__ import annotations

import struct

PROTOCOL = 1
"""Version of both layers; the server speaks this one and the one before it."""
PORT_EXEC = 1024
"""Stream port: one command per stream."""
PORT_CONTROL = 1026
"""Stream port: control requests (CONTROL_REQUEST and CONTROL_RESPONSE frames), several in turn on one stream."""
PORT_PROXY = 1028
"""Stream port: ``CONNECT <port>`` + newline, answered ``OK`` or ``ERR <text>`` + newline, then raw bytes of a TCP
connection.
"""
PORT_LISTEN = 1029
"""Stream port: the guest listens for the host, and hands over what came; `shed.guest.listen` has the lines.  An agent
without it resets the stream.
"""

MAGIC = b"\x00\xffshed-mux\xff\x00\r\n\x1a\n\x01\x02"
"""16 bytes that start each side's part of a mux session."""

# Mux frame kinds.
HELLO = 1
"""Guest to host, stream 0: JSON {"nonce", "agent", "protocol", ...}."""
ATTACH = 2
"""Host to guest, stream 0: the nonce, as UTF-8."""
OPEN = 3
"""Host to guest: open the new stream; payload is the port, 4 bytes big-endian.  Data may follow at once."""
DATA = 4
"""Bytes of a stream; they use up the sender's credit."""
CREDIT = 5
"""The receiver has consumed so many bytes (4 bytes big-endian) of a stream: the sender may send as many more."""
EOF = 6
"""The sender sends no more DATA on this stream (half-close)."""
RESET = 7
"""The stream is over, both ways, at once; payload is the reason, as UTF-8."""

INITIAL_CREDIT = 256 * 1024
"""Bytes each side may send on a new stream before the first CREDIT."""
GROWN_CREDIT = 1024 * 1024
"""Bytes each side has room for on a stream that carries much: its first CREDIT grants what is missing to that."""
MAX_MUX_PAYLOAD = 64 * 1024
"""Longest payload of a mux frame, in bytes; a longer one is a protocol error."""

# Exec frame types.
EXEC_REQUEST = 0x01
"""Host to guest, first: JSON {"cmd": [str], "env": [str "K=V"], "tty": bool, "rows": int, "cols": int, "working_dir":
str, "user": str}; all but cmd optional.

Newer members, which an older agent ignores: "fallback": [str] runs when the program of cmd is not in the image; "home":
true starts in the user's home instead of the workspace; "modes": [[int, int]] are those of the terminal (RFC 4254, 8);
"to_end": true has the exit wait until nobody holds the output any more.
"""
RESIZE = 0x02
"""JSON {"rows", "cols"}."""
SIGNAL = 0x03
"""JSON {"signal": 1..64}, sent to the command's process group."""
EXIT_CODE = 0x04
"""Guest to host, last, after all output: JSON {"code": 0..255} with optional "error": str and "signal": int."""
DATA_FRAME = 0x05
"""Standard input to the guest; standard output, or all of a pty's output, to the host.  Empty is a keepalive."""
STDIN_EOF = 0x06
"""Standard input ends here; signals and resizes may still follow."""
STDERR = 0x07
"""Guest to host: standard error."""
STDIN_TAKEN = 0x08
"""Guest to host: the command has taken so many more bytes of its standard input (4 bytes big-endian)."""
STDOUT_CLOSED = 0x09
"""Host to guest, empty: nobody reads standard output any more, so a write to it fails (SIGPIPE).  Of a terminal it is
the end.  An older agent ignores it.
"""
CONTROL_REQUEST = 0x30
"""JSON {"op": str, ...}."""
CONTROL_RESPONSE = 0x31
"""JSON {"ok": true, ...} or {"ok": false, "code": str, "error": str}."""

MAX_PAYLOAD = 16 * 1024 * 1024
"""Longest payload of an exec frame, in bytes; both sides refuse more."""

STDIN_WINDOW = 256 * 1024
"""Bytes of standard input that the host sends beyond what STDIN_TAKEN has told.  So input that the command does not
read never fills the stream, and signals still get through.
"""
STDIN_GROWN = 1024 * 1024
"""The window of input of which the command has taken a quarter of `STDIN_WINDOW`: the first STDIN_TAKEN tells as much
more as it has grown.  Then the guest tells in steps of a quarter of it, or coarser ones.
"""

_MUX = struct.Struct(">BII")
_FRAME = struct.Struct(">BI")
MUX_HEADER = _MUX.size
FRAME_HEADER = _FRAME.size


class ProtocolError(Exception):
    """The other side sent bytes that cannot be a frame."""


def counted(payload: bytes) -> int:
    """Return the number of bytes that a CREDIT or a STDIN_TAKEN tells.  Raises `ProtocolError`."""
    if len(payload) != 4:
        raise ProtocolError(f"a count of {len(payload)} bytes, 4 are right")
    return int.from_bytes(payload, "big")


def mux_header(data: bytes | bytearray | memoryview) -> tuple[int, int, int]:
    """Return kind, stream and length of the mux frame that begins with `data`."""
    return _MUX.unpack_from(data)


def put_mux_header(data: memoryview, kind: int, stream: int, length: int) -> None:
    """Write the header of a mux frame to where `data` begins."""
    _MUX.pack_into(data, 0, kind, stream, length)


def exec_header(data: bytes | bytearray | memoryview) -> tuple[int, int]:
    """Return type and length of the exec frame that begins with `data`."""
    return _FRAME.unpack_from(data)


def put_exec_header(data: memoryview, kind: int, length: int) -> None:
    """Write the header of an exec frame to where `data` begins."""
    _FRAME.pack_into(data, 0, kind, length)


def mux_frame(kind: int, stream: int, payload: bytes | bytearray | memoryview = b"") -> bytes:
    """Return one mux frame."""
    return _MUX.pack(kind, stream, len(payload)) + payload


def exec_frame(kind: int, payload: bytes | bytearray | memoryview = b"") -> bytes:
    """Return one exec frame."""
    return _FRAME.pack(kind, len(payload)) + payload


class _Decoder:
    """Collects bytes; keeps an index into them so that many small frames cost no copying."""

    __slots__ = ("_buffer", "_index")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._index = 0

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add received bytes."""
        if self._index:
            del self._buffer[: self._index]
            self._index = 0
        self._buffer += data

    def pending(self) -> int:
        """Return how many received bytes are not part of a returned frame yet."""
        return len(self._buffer) - self._index

    def _take(self, header: int, length: int) -> bytes | None:
        """Return the payload behind `header` bytes when all of it is here, and move on; None otherwise."""
        start = self._index + header
        end = start + length
        if end > len(self._buffer):
            return None
        self._index = end
        return bytes(memoryview(self._buffer)[start:end])


class MuxDecoder(_Decoder):
    """Turns received bytes into mux frames.

    Before the first frame of a session, `synchronise` must have found `MAGIC`.
    """

    __slots__ = ()

    def synchronise(self) -> bool:
        """Throw away everything up to and including the next `MAGIC`; return whether it was found."""
        at = self._buffer.find(MAGIC, self._index)
        if at >= 0:
            self._index = at + len(MAGIC)
            return True
        keep = max(self._index, len(self._buffer) - len(MAGIC) + 1)
        self._index = keep
        return False

    def frame(self) -> tuple[int, int, bytes] | None:
        """Return the next (kind, stream, payload), or None until more bytes come.  Raises `ProtocolError`."""
        if self.pending() < MUX_HEADER:
            return None
        kind, stream, length = _MUX.unpack_from(self._buffer, self._index)
        if length > MAX_MUX_PAYLOAD:
            raise ProtocolError(f"mux frame of {length} bytes, {MAX_MUX_PAYLOAD} is the most")
        payload = self._take(MUX_HEADER, length)
        return None if payload is None else (kind, stream, payload)


class FrameDecoder(_Decoder):
    """Turns received bytes into exec frames of at most `most` bytes.

    Unknown types are returned too: the caller skips them.
    """

    __slots__ = ("_most",)

    def __init__(self, most: int = MAX_PAYLOAD) -> None:
        super().__init__()
        self._most = most

    def frame(self) -> tuple[int, bytes] | None:
        """Return the next (type, payload), or None until more bytes come.  Raises `ProtocolError`."""
        if self.pending() < FRAME_HEADER:
            return None
        kind, length = _FRAME.unpack_from(self._buffer, self._index)
        if length > self._most:
            raise ProtocolError(f"frame of {length} bytes, {self._most} is the most")
        payload = self._take(FRAME_HEADER, length)
        return None if payload is None else (kind, payload)
