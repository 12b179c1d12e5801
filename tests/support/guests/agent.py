"""A running agent and a plain, blocking host for it: what the tests of the guest speak with."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from shed.guest import protocol as p

SOURCE = Path(p.__file__).parents[2]
PATIENCE = 60.0
"""Seconds after which a test gives up waiting."""


class CutError(Exception):
    """The guest reset the stream."""


class Agent:
    """The agent's process, and where hosts connect to it."""

    def __init__(self, folder: Path, settings: Mapping[str, object] | None) -> None:
        self.address = str(folder / "port")
        listener = socket.socket(socket.AF_UNIX)
        here = os.getcwd()
        os.chdir(folder)  # the name of a Unix socket is short
        try:
            listener.bind("port")
        finally:
            os.chdir(here)
        listener.listen()
        self._folder = folder
        console = (folder / "console").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("agent_process.py")), str(SOURCE),
             str(listener.fileno()), json.dumps(dict(settings) if settings is not None else None)],
            pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=console,
        )  # fmt: skip
        listener.close()
        console.close()
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith(b"ready"), self.console()

    def console(self) -> str:
        """What the agent printed."""
        return (self._folder / "console").read_text()

    def connect(self) -> socket.socket:
        """Return a bare connection, as the host's end of the port."""
        here = os.getcwd()
        os.chdir(self._folder)
        try:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect("port")
            sock.settimeout(PATIENCE)
            return sock
        finally:
            os.chdir(here)

    @contextmanager
    def host(self) -> Iterator[Host]:
        """An attached host."""
        host = Host(self.connect())
        try:
            host.attach()
            yield host
        finally:
            host.close()

    def close(self) -> None:
        """End the agent."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Host:
    """The host's side of the multiplexer, one thread, no cleverness."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.decoder = p.MuxDecoder()
        self.streams: dict[int, HostStream] = {}
        self.hello: dict[str, object] = {}
        self._next = 1

    def read_hello(self) -> str:
        """Wait for the guest's hello and return its nonce."""
        while not self.decoder.synchronise():
            self._receive()
        while (frame := self.decoder.frame()) is None:
            self._receive()
        assert frame[:2] == (p.HELLO, 0)
        self.hello = json.loads(frame[2])
        return str(self.hello["nonce"])

    def attach(self) -> None:
        """Begin a session."""
        nonce = self.read_hello()
        self.sock.sendall(p.MAGIC + p.mux_frame(p.ATTACH, 0, nonce.encode()))

    def open(self, port: int) -> HostStream:
        """Open a stream."""
        stream = HostStream(self, self._next)
        self.streams[self._next] = stream
        self._next += 1
        self.sock.sendall(p.mux_frame(p.OPEN, stream.number, port.to_bytes(4, "big")))
        return stream

    def control(self, **request: object) -> dict[str, object]:
        """Ask the agent something."""
        stream = self.open(p.PORT_CONTROL)
        stream.send(p.exec_frame(p.CONTROL_REQUEST, json.dumps(request).encode()))
        kind, payload = stream.frame()
        assert kind == p.CONTROL_RESPONSE
        stream.end()
        return json.loads(payload)  # type: ignore[no-any-return]

    def pump(self, seconds: float = PATIENCE) -> bool:
        """Take in what the guest sends next; False when nothing comes within `seconds`.  Raises `EOFError`."""
        waiting = select.poll()
        waiting.register(self.sock, select.POLLIN)
        if not waiting.poll(seconds * 1000):
            return False
        self._receive()
        while (frame := self.decoder.frame()) is not None:
            kind, number, payload = frame
            self.streams[number].take(kind, payload)
        return True

    def close(self) -> None:
        """Hang up."""
        self.sock.close()

    def _receive(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError
        self.decoder.feed(data)


class HostStream:
    """A stream; reading gives credit at once unless `greedy` is taken away."""

    def __init__(self, host: Host, number: int) -> None:
        self.host = host
        self.number = number
        self.received = bytearray()
        self.credit = p.INITIAL_CREDIT
        self.ended = False
        self.cut: str | None = None
        self.greedy = True
        self.frames = p.FrameDecoder()

    def take(self, kind: int, payload: bytes) -> None:
        """Take a mux frame."""
        if kind == p.DATA:
            self.received += payload
            if self.greedy:
                self.host.sock.sendall(p.mux_frame(p.CREDIT, self.number, len(payload).to_bytes(4, "big")))
        elif kind == p.CREDIT:
            self.credit += int.from_bytes(payload, "big")
        elif kind == p.EOF:
            self.ended = True
        else:
            assert kind == p.RESET
            self.cut = payload.decode()

    def send(self, data: bytes) -> None:
        """Send all, waiting for credit."""
        while data:
            while self.credit <= 0:
                assert self.host.pump(), "the guest gives no credit"
                self.check()
            size = min(self.credit, p.MAX_MUX_PAYLOAD, len(data))
            self.host.sock.sendall(p.mux_frame(p.DATA, self.number, data[:size]))
            self.credit -= size
            data = data[size:]

    def check(self) -> None:
        """Raise `CutError` when the guest reset the stream."""
        if self.cut is not None:
            raise CutError(self.cut)

    def end(self) -> None:
        """Half-close."""
        self.host.sock.sendall(p.mux_frame(p.EOF, self.number))

    def reset(self) -> None:
        """Cut."""
        self.host.sock.sendall(p.mux_frame(p.RESET, self.number, b"test"))

    def read(self) -> bytes:
        """Return what has come; empty at the guest's end."""
        while not self.received and not self.ended:
            self.check()
            assert self.host.pump(), "the guest sends nothing"
        data = bytes(self.received)
        self.received.clear()
        return data

    def frame(self) -> tuple[int, bytes]:
        """Return the next exec frame.  Raises `EOFError`."""
        while (frame := self.frames.frame()) is None:
            data = self.read()
            if not data:
                raise EOFError
            self.frames.feed(data)
        return frame


class Result:
    """What a command did."""

    def __init__(self) -> None:
        self.stdout = b""
        self.stderr = b""
        self.taken = 0
        self.exit: dict[str, object] = {}


class Command:
    """A running command."""

    def __init__(self, host: Host, *words: str, **request: object) -> None:
        self.stream = host.open(p.PORT_EXEC)
        self.result = Result()
        self.send(p.EXEC_REQUEST, json.dumps({"cmd": list(words), **request}).encode())

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Send a frame."""
        self.stream.send(p.exec_frame(kind, payload))

    def signal(self, number: int) -> None:
        """Signal the command."""
        self.send(p.SIGNAL, json.dumps({"signal": number}).encode())

    def until(self, text: bytes) -> None:
        """Wait until standard output holds `text`."""
        while text not in self.result.stdout:
            self._take()

    def runs_once_it_says(self, text: bytes) -> bool:
        """Wait until standard output holds `text`, or it has ended; return whether it has not."""
        while text not in self.result.stdout and not self.result.exit:
            self._take()
        return not self.result.exit

    def wait(self) -> Result:
        """Wait for the exit frame, and check that it is the last."""
        while not self.result.exit:
            self._take()
        try:
            extra = self.stream.frame()
        except EOFError:
            return self.result
        raise AssertionError(f"a frame after the exit frame: {extra}")

    def _take(self) -> None:
        kind, payload = self.stream.frame()
        if kind == p.DATA_FRAME:
            self.result.stdout += payload
        elif kind == p.STDERR:
            self.result.stderr += payload
        elif kind == p.STDIN_TAKEN:
            self.result.taken += int.from_bytes(payload, "big")
        else:
            assert kind == p.EXIT_CODE
            self.result.exit = json.loads(payload)


def run(host: Host, *words: str, stdin: bytes = b"", **request: object) -> Result:
    """Run a command to its end."""
    command = Command(host, *words, **request)
    if stdin:
        command.send(p.DATA_FRAME, stdin)
    command.send(p.STDIN_EOF)
    return command.wait()
