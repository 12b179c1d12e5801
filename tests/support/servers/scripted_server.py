"""A server on a Unix socket that says what a test scripts: answers that a healthy server never gives; it shows what a
client sends.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from shed.guest.protocol import EXEC_REQUEST, EXIT_CODE, STDIN_EOF, STDIN_TAKEN, FrameDecoder, exec_frame

TIMEOUT = 60.0
"""Seconds a script waits for the client."""


class Conversation:
    """One connection, from the server's side.  The request has been read."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        sock.settimeout(TIMEOUT)
        data = b""
        while b"\r\n\r\n" not in data:
            more = sock.recv(65536)
            if not more:
                raise EOFError
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        self.request = lines[0].removesuffix(" HTTP/1.1")
        self.headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        while len(body) < int(self.headers.get("content-length", "0")):
            body += sock.recv(65536)
        self.body = body
        self._decoder = FrameDecoder()

    def answer(self, status: int, body: bytes, *, kind: str = "application/json") -> None:
        """Send a whole response."""
        self.socket.sendall(
            b"HTTP/1.1 %d X\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s"
            % (status, kind.encode(), len(body), body)
        )

    def begin_events(self) -> None:
        """Send the head of a stream of events; what follows goes through `event`."""
        self.socket.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")

    def event(self, name: str, data: str) -> None:
        """Send one event."""
        block = f"event: {name}\ndata: {data}\n\n".encode()
        self.socket.sendall(b"%x\r\n%s\r\n" % (len(block), block))

    def upgrade(self) -> bytes:
        """Agree to the upgrade and return the payload of the first frame, which must be an exec request."""
        self.socket.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: shed-exec\r\n\r\n")
        frame = self.frame()
        assert frame is not None
        assert frame[0] == EXEC_REQUEST
        return frame[1]

    def frame(self) -> tuple[int, bytes] | None:
        """Return the client's next frame, None when it has left."""
        while (frame := self._decoder.frame()) is None:
            data = self.socket.recv(65536)
            if not data:
                return None
            self._decoder.feed(data)
        return frame

    def drain(self) -> list[tuple[int, bytes]]:
        """Return all frames up to the end of standard input."""
        frames = []
        while (frame := self.frame()) is not None and frame[0] != STDIN_EOF:
            frames.append(frame)
        return frames

    def say(self, kind: int, payload: bytes) -> None:
        """Send a frame."""
        self.socket.sendall(exec_frame(kind, payload))

    def taken(self, count: int) -> None:
        """Say that the command has read so much of its input."""
        self.say(STDIN_TAKEN, count.to_bytes(4, "big"))

    def exit(self, code: int) -> None:
        """Send the exit frame."""
        self.say(EXIT_CODE, b'{"code": %d}' % code)


Script = Callable[[Conversation], None]


class ScriptedServer:
    """Runs `script` for each connection, in threads, while the block lasts; a script that fails fails the test."""

    def __init__(self, path: Path, script: Script) -> None:
        self.url = f"unix://{path}"
        self._script = script
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._problems: list[BaseException] = []

    def __enter__(self) -> ScriptedServer:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(TIMEOUT)
        self._listener.close()
        if self._problems and error is None:
            raise AssertionError("the script failed") from self._problems[0]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(sock,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            try:
                self._script(Conversation(sock))
            except EOFError:
                pass  # it only asked whether somebody is there
            except BaseException as problem:  # noqa: BLE001  shown in the test's thread
                self._problems.append(problem)
