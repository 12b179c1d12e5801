"""One command in the guest, and the channel of the client who runs it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass

from shed.backends.base import Stream
from shed.errors import BackendError
from shed.guest import protocol
from shed.server.ssh.duplex import STDERR, Duplex, GoneError
from shed.untrusted import load_exit


@dataclass(frozen=True, slots=True)
class Exit:
    """How a command ended: its `code`, the number of the `signal` that ended it or 0, and `error` when it did not start."""

    code: int
    signal: int = 0
    error: str | None = None


class Command:
    """Carries bytes between an exec stream and a channel, until the command ends or the client goes."""

    def __init__(self, stream: Stream, client: Duplex) -> None:
        self._stream = stream
        self._client = client
        self._decoder = protocol.FrameDecoder()
        self._window = protocol.STDIN_WINDOW
        self._taken = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()

    async def run(self, request: dict[str, object]) -> Exit:
        """Run what `request` asks for, see `EXEC_REQUEST`.

        Raises `BackendError` when the guest is lost, `GoneError` when the client is, and the guest then hangs the
        command up.
        """
        self._client.when_gone(self._stream.close)
        await self._stream.write(protocol.exec_frame(protocol.EXEC_REQUEST, json.dumps(request).encode()))
        feeding = asyncio.create_task(self._input())
        try:
            return await self._output()
        except protocol.ProtocolError as error:
            raise BackendError(f"the agent does not speak our protocol: {error}", code="AGENT_PROTOCOL") from None
        finally:
            for task in (feeding, *self._sending):
                task.cancel()
            await asyncio.gather(feeding, *self._sending, return_exceptions=True)

    def signal(self, number: int) -> None:
        """Send a signal to the command's process group."""
        self._send(protocol.SIGNAL, {"signal": number})

    def resize(self, rows: int, columns: int) -> None:
        """Tell the command's terminal its new size."""
        self._send(protocol.RESIZE, {"rows": rows, "cols": columns})

    async def _output(self) -> Exit:
        while True:
            while frame := self._decoder.frame():
                kind, payload = frame
                if kind == protocol.DATA_FRAME:
                    await self._client.write(payload)
                elif kind == protocol.STDERR:
                    await self._client.write(payload, STDERR)
                elif kind == protocol.STDIN_TAKEN:
                    self._window += protocol.counted(payload)
                    self._taken.set()
                elif kind == protocol.EXIT_CODE:
                    return _exit_of(payload)
            data = await self._stream.read()
            if not data:
                raise BackendError("the guest ended the stream before the command", code="EXEC_LOST")
            self._decoder.feed(data)

    async def _input(self) -> None:
        with contextlib.suppress(BackendError, GoneError):
            while data := await self._client.read():
                rest = memoryview(data)
                while rest:
                    while self._window <= 0:
                        self._taken.clear()
                        await self._taken.wait()
                    piece, rest = rest[: self._window], rest[self._window :]
                    self._window -= len(piece)
                    await self._stream.write(protocol.exec_frame(protocol.DATA_FRAME, piece))
            await self._stream.write(protocol.exec_frame(protocol.STDIN_EOF))

    def _send(self, kind: int, value: dict[str, int]) -> None:
        task = asyncio.create_task(self._write(protocol.exec_frame(kind, json.dumps(value).encode())))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _write(self, frame: bytes) -> None:
        with contextlib.suppress(BackendError):  # the command has ended, which is told in another way
            await self._stream.write(frame)


def _exit_of(payload: bytes) -> Exit:
    try:
        return Exit(*load_exit(payload))
    except ValueError as error:
        raise protocol.ProtocolError(str(error)) from None
