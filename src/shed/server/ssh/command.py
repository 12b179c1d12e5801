"""One command in the guest, and the channel of the client who runs it."""

from __future__ import annotations

import asyncio
import contextlib

from shed.backends.base import Stream
from shed.errors import BackendError
from shed.execstream import ExecStream, Exit, Output, StreamEndedError
from shed.guest.protocol import ProtocolError
from shed.server.ssh.duplex import STDERR, Duplex, GoneError


class Command:
    """Carries bytes between an exec stream and a channel, until the command ends or the client goes."""

    def __init__(self, stream: Stream, client: Duplex) -> None:
        self._stream = stream
        self._client = client
        self._state = ExecStream()
        self._room = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()

    async def run(self, request: bytes) -> Exit:
        """Run what the frame `request` asks for.

        Raises `BackendError` when the guest is lost, `GoneError` when the client is, and the guest then hangs the
        command up.
        """
        self._client.when_gone(self._stream.close)
        await self._stream.write(request)
        feeding = asyncio.create_task(self._input())
        try:
            return await self._output()
        except StreamEndedError:
            raise BackendError("the guest ended the stream before the command", code="EXEC_LOST") from None
        except ProtocolError as error:
            raise BackendError(f"the agent does not speak our protocol: {error}", code="AGENT_PROTOCOL") from None
        finally:
            for task in (feeding, *self._sending):
                task.cancel()
            await asyncio.gather(feeding, *self._sending, return_exceptions=True)

    def signal(self, number: int) -> None:
        """Send a signal to the command's process group."""
        self._send(self._state.signal(number))

    def stdout_closed(self) -> None:
        """Tell the command that nobody reads its standard output."""
        self._send(self._state.stdout_closed())

    def resize(self, rows: int, columns: int) -> None:
        """Tell the command's terminal its new size."""
        self._send(self._state.resize(rows, columns))

    async def _output(self) -> Exit:
        while True:
            while (event := self._state.next()) is not None:
                if isinstance(event, Exit):
                    return event
                if isinstance(event, Output):
                    await self._client.write(event.data, STDERR if event.error else None)
                else:
                    self._room.set()
            self._state.feed(await self._stream.read())

    async def _input(self) -> None:
        with contextlib.suppress(BackendError, GoneError):
            while data := await self._client.read():
                rest = memoryview(data)
                while rest:
                    while self._state.room <= 0:
                        self._room.clear()
                        await self._room.wait()
                    piece, rest = rest[: self._state.room], rest[self._state.room :]
                    await self._stream.write(self._state.stdin(piece))
            await self._stream.write(self._state.stdin_end())

    def _send(self, frame: bytes) -> None:
        task = asyncio.create_task(self._write(frame))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _write(self, frame: bytes) -> None:
        with contextlib.suppress(BackendError):  # the command has ended, which is told in another way
            await self._stream.write(frame)
