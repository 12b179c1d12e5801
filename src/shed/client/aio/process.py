"""Commands in a shed, for asyncio: run to the end with their output, or as a process with streams.

`shed.client.sync.process` has the same names for programs without asyncio.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select

from shed.client import streams
from shed.client.address import Address
from shed.client.commands import CommandTimeoutError, Input, Result, started
from shed.client.messages import shed_target
from shed.errors import BackendError
from shed.execstream import ExecStream, Exit, Output, StreamEndedError, request_frame
from shed.guest.protocol import ProtocolError

_MOST = 256 * 1024
"""Bytes of an output that wait for their reader before the connection is not read any more."""
_LOOK = 250
"""Milliseconds after which a thread that waits for input looks whether anybody still wants it."""
_GRACE = 5.0
"""Seconds that a command which is being killed has to be gone, before its shed is taken for hung."""
_SIGKILL = 9


async def run(
    address: Address,
    name: str,
    words: list[str],
    *,
    stdin: Input = None,
    env: list[str] | None = None,
    working_dir: str | None = None,
    user: str | None = None,
    timeout: float | None = None,
) -> Result:
    """Run a command to its end and return what it did; an open file as `stdin` is read from where it stands.

    Raises `CommandTimeoutError` after `timeout` seconds, and the `ShedError` that kept the command from running.
    """
    process = await AsyncProcess.start(address, name, words, env=env, working_dir=working_dir, user=user)
    async with process:
        assert process.stderr is not None
        outputs = [asyncio.create_task(output.read()) for output in (process.stdout, process.stderr)]
        feeding = asyncio.create_task(_feed(process.stdin, stdin))
        try:
            try:
                async with asyncio.timeout(timeout):
                    ended = await process.ended()
            except TimeoutError:
                await process.kill()
                result = Result(tuple(words), 128 + _SIGKILL, *(await asyncio.gather(*outputs)))
                raise CommandTimeoutError(result, timeout or 0) from None
            return started(Result(tuple(words), ended.code, *(await asyncio.gather(*outputs))), ended)
        finally:
            for task in (*outputs, feeding):
                task.cancel()
            await asyncio.gather(*outputs, feeding, return_exceptions=True)


async def _feed(stdin: AsyncInput, given: Input) -> None:
    if isinstance(given, bytes | str):
        await stdin.write(given.encode() if isinstance(given, str) else given)
    elif given is not None:
        while (data := await asyncio.to_thread(_read, given.fileno())) != b"":
            if data is not None:
                await stdin.write(data)
    await stdin.close()


def _read(fd: int) -> bytes | None:
    """Return what can be read, nothing at the end of file; None when there is nothing yet."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return os.read(fd, streams.CHUNK) if poll.poll(_LOOK) else None


class AsyncOutput:
    """What a command writes, as it comes; iterate over it for lines."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ended = False
        self._changed = asyncio.Condition()

    async def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes as soon as there are some, or all to the end when it is negative.

        Empty at the end.
        """
        found = bytearray()
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._data or self._ended)
                taken = len(self._data) if size < 0 else min(size, len(self._data))
                found += self._data[:taken]
                del self._data[:taken]
                self._changed.notify_all()
                if size >= 0 or (self._ended and not self._data):
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

    def __aiter__(self) -> AsyncOutput:
        return self

    async def __anext__(self) -> bytes:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    async def _take(self, data: bytes) -> None:
        """Take more, when the reader has taken most of what came before."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._data) < _MOST or self._ended)
            if not self._ended:
                self._data += data
                self._changed.notify_all()

    async def _end(self) -> None:
        async with self._changed:
            self._ended = True
            self._changed.notify_all()


class AsyncInput:
    """What a command reads."""

    def __init__(self, process: AsyncProcess) -> None:
        self._process = process

    async def write(self, data: bytes) -> None:
        """Write `data`; waits while the command is far behind.  Raises `BrokenPipeError` when it has ended."""
        await self._process._write(data)  # noqa: SLF001  of this module

    async def close(self) -> None:
        """Have the command read the end of its standard input.  Can be called twice."""
        await self._process._end_input()  # noqa: SLF001


class AsyncProcess:
    """A command that runs; leaving its block hangs it up.

    What is not read holds the command up, so read both outputs, or merge them.
    """

    def __init__(self, stream: streams.Streams, words: list[str], *, merge: bool) -> None:
        self._reader, self._writer = stream
        self._words = tuple(words)
        self._stream = ExecStream()
        self._room = asyncio.Event()
        self.stdin = AsyncInput(self)
        """What the command reads; close it for its end."""
        self.stdout = AsyncOutput()
        """What the command writes, also to standard error when they are merged."""
        self.stderr = None if merge else AsyncOutput()
        self._task = asyncio.create_task(self._take_events())
        self._task.add_done_callback(lambda _: self._room.set())

    @classmethod
    async def start(
        cls,
        address: Address,
        name: str,
        words: list[str],
        *,
        env: list[str] | None = None,
        working_dir: str | None = None,
        user: str | None = None,
        merge: bool = False,
    ) -> AsyncProcess:
        """Start a command; with `merge`, its standard error comes with its standard output.

        Raises the `ShedError` that keeps it from running.
        """
        request = request_frame(words, env=env or (), working_dir=working_dir, user=user)
        reader, writer = await streams.upgrade(address, "POST", shed_target(name, "exec"), "shed-exec")
        writer.write(request)
        return cls((reader, writer), words, merge=merge)

    async def __aenter__(self) -> AsyncProcess:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def wait(self, timeout: float | None = None) -> int:
        """Return the exit code, as a shell counts it.

        Raises `TimeoutError` after `timeout` seconds, `BackendError` (EXEC_LOST), and `CommandError` (EXEC_FAILED) when
        the command did not start.
        """
        try:
            async with asyncio.timeout(timeout):
                ended = await self.ended()
        except TimeoutError:
            raise TimeoutError(f"the command still runs after {timeout:g} s") from None
        started(Result(self._words, ended.code, b"", b""), ended)
        return ended.code

    def signal(self, number: int) -> None:
        """Send a signal to the command's process group; nothing happens when it has ended."""
        if not self._task.done():
            self._writer.write(self._stream.signal(number))

    async def close(self) -> None:
        """Hang the command up if it still runs.  Can be called twice."""
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.exception()  # whoever wanted it has had it
        self._writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    async def ended(self) -> Exit:
        """Return how the command ended.  Raises `BackendError` (EXEC_LOST)."""
        return await asyncio.shield(self._task)

    async def kill(self) -> None:
        """Kill the command, and end its outputs with what came, even if its shed hangs."""
        self.signal(_SIGKILL)
        await asyncio.wait([self._task], timeout=_GRACE)
        await self._end_outputs()

    async def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            if self._task.done():
                raise BrokenPipeError("the command has ended")
            if self._stream.room <= 0:
                self._room.clear()
                await self._room.wait()
                continue
            piece, rest = rest[: self._stream.room], rest[self._stream.room :]
            self._writer.write(self._stream.stdin(piece))
            with contextlib.suppress(ConnectionError):
                await self._writer.drain()

    async def _end_input(self) -> None:
        if not self._task.done():
            self._writer.write(self._stream.stdin_end())

    async def _take_events(self) -> Exit:
        try:
            while True:
                while (event := self._stream.next()) is not None:
                    if isinstance(event, Exit):
                        return event
                    if isinstance(event, Output):
                        output = self.stderr if event.error and self.stderr is not None else self.stdout
                        await output._take(event.data)  # noqa: SLF001  of this module
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
            await self._end_outputs()

    async def _end_outputs(self) -> None:
        for output in (self.stdout, self.stderr):
            if output is not None:
                await output._end()  # noqa: SLF001  of this module
