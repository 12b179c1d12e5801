"""A command in a shed, for asyncio."""

from __future__ import annotations

import asyncio
import contextlib

from shed.client import streams
from shed.client.address import Address
from shed.client.commands import CommandTimeoutError, Result, started
from shed.errors import BackendError
from shed.execstream import ExecStream, Exit, Output, StreamEndedError, request_frame
from shed.guest.protocol import ProtocolError

_MOST = 256 * 1024
"""Bytes of an output that wait for their reader before the connection is not read any more."""
_SIGKILL = 9


class OutputReader:
    """What a command writes, as it comes; iterate over it for lines."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ended = False
        self._changed = asyncio.Condition()

    async def read(self, limit: int = -1) -> bytes:
        """Return up to `limit` bytes as soon as there are some, or all to the end when it is negative.

        Empty at the end.
        """
        found = bytearray()
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._data or self._ended)
                size = len(self._data) if limit < 0 else min(limit, len(self._data))
                found += self._data[:size]
                del self._data[:size]
                self._changed.notify_all()
                if limit >= 0 or (self._ended and not self._data):
                    return bytes(found)

    async def readline(self) -> bytes:
        """Return the next line with its end, what is left at the end of all, and nothing after that."""
        line = bytearray()
        while not line.endswith(b"\n"):
            async with self._changed:
                await self._changed.wait_for(lambda: self._data or self._ended)
                if not self._data:
                    break
                end = self._data.find(b"\n") + 1 or len(self._data)
                line += self._data[:end]
                del self._data[:end]
                self._changed.notify_all()
        return bytes(line)

    def __aiter__(self) -> OutputReader:
        return self

    async def __anext__(self) -> bytes:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    async def feed(self, data: bytes) -> None:
        """Take more, when the reader has taken most of what came before."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._data) < _MOST or self._ended)
            if not self._ended:
                self._data += data
                self._changed.notify_all()

    async def end(self) -> None:
        """There is no more."""
        async with self._changed:
            self._ended = True
            self._changed.notify_all()


class AsyncProcess:
    """A command that runs; leaving its ``async with`` block hangs it up.

    What is not read of its outputs holds it up.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, words: list[str]) -> None:
        self._reader = reader
        self._writer = writer
        self._words = tuple(words)
        self._stream = ExecStream()
        self._room = asyncio.Event()
        self.stdout = OutputReader()
        self.stderr = OutputReader()
        self._task = asyncio.create_task(self._take_events())

    @classmethod
    async def start(
        cls, address: Address, name: str, words: list[str], *, env: list[str], working_dir: str | None, user: str | None
    ) -> AsyncProcess:
        """Start a command.  Raises the `ShedError` that keeps it from running."""
        request = request_frame(words, env=env, working_dir=working_dir, user=user)
        reader, writer = await streams.upgrade(address, "POST", f"/api/sheds/{name}/exec", "shed-exec")
        writer.write(request)
        return cls(reader, writer, words)

    async def __aenter__(self) -> AsyncProcess:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def write(self, data: bytes) -> None:
        """Write to the command's standard input; waits while the command is far behind.

        What an ended one does not take is dropped.
        """
        rest = memoryview(data)
        while rest and not self._task.done():
            if self._stream.room <= 0:
                self._room.clear()
                await self._room.wait()
                continue
            piece, rest = rest[: self._stream.room], rest[self._stream.room :]
            self._writer.write(self._stream.stdin(piece))
            with contextlib.suppress(ConnectionError):
                await self._writer.drain()

    def end_input(self) -> None:
        """Have the command read the end of its standard input."""
        self._writer.write(self._stream.stdin_end())

    def signal(self, number: int) -> None:
        """Send a signal to the command's process group."""
        self._writer.write(self._stream.signal(number))

    async def wait(self) -> int:
        """Return the exit code, as a shell counts it.

        Raises `BackendError` (EXEC_LOST), and `CommandError` when it did not start.
        """
        ended = await asyncio.shield(self._task)
        started(Result(self._words, ended.code, b"", b""), ended)
        return ended.code

    async def communicate(self, stdin: bytes = b"", *, timeout: float | None = None) -> Result:
        """Write `stdin`, read both outputs to their ends, and return what the command did.

        Raises `CommandTimeoutError`.
        """
        outputs = [asyncio.create_task(output.read()) for output in (self.stdout, self.stderr)]
        feeding = asyncio.create_task(self._feed(stdin))
        try:
            try:
                async with asyncio.timeout(timeout):
                    ended = await asyncio.shield(self._task)
            except TimeoutError:
                self.signal(_SIGKILL)
                await asyncio.wait([self._task], timeout=5)
                for output in (self.stdout, self.stderr):
                    await output.end()
                result = Result(self._words, 128 + _SIGKILL, *(await asyncio.gather(*outputs)))
                raise CommandTimeoutError(result, timeout or 0) from None
            result = Result(self._words, ended.code, *(await asyncio.gather(*outputs)))
            return started(result, ended)
        finally:
            for task in (*outputs, feeding):
                task.cancel()

    async def close(self) -> None:
        """Hang the command up if it still runs."""
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.exception()  # whoever wanted it has had it
        self._writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    async def _feed(self, stdin: bytes) -> None:
        await self.write(stdin)
        self.end_input()

    async def _take_events(self) -> Exit:
        try:
            while True:
                while (event := self._stream.next()) is not None:
                    if isinstance(event, Exit):
                        return event
                    if isinstance(event, Output):
                        await (self.stderr if event.error else self.stdout).feed(event.data)
                    else:
                        self._room.set()
                self._stream.feed(await self._reader.read(streams.CHUNK))
        except (ConnectionError, StreamEndedError):
            raise BackendError(
                "lost the connection to the command", code="EXEC_LOST", hint="see what happened: shed logs"
            ) from None
        except ProtocolError as error:
            raise BackendError(f"the agent does not speak our protocol: {error}", code="AGENT_PROTOCOL") from None
        finally:
            self._room.set()
            for output in (self.stdout, self.stderr):
                await output.end()
