"""What asyncio's flavour of the client does by itself: connections, threads, forwarding.

`shed.client.sync.driver` has the same names for programs without asyncio; all that is above the two is written once.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from shed.client import streams
from shed.client.address import Address
from shed.client.forward import Forwarder, Rule
from shed.client.streams import Streams as Stream

_WATCH = 0.25
"""Seconds between two looks at whether anybody still reads what is received."""
T = TypeVar("T")
P = ParamSpec("P")

__all__ = [
    "AsyncConnection",
    "Stream",
    "connect",
    "forwarded",
    "in_thread",
    "open_connection",
    "open_stream",
    "shielded",
]


class AsyncConnection:
    """A connection to the server."""

    def __init__(self, stream: Stream) -> None:
        self._reader, self._writer = stream

    async def read(self, seconds: float | None = None, *, output: int | None = None) -> bytes:
        """Return what comes next, nothing at the end.

        Raises `TimeoutError` after `seconds`, `OSError` when the connection breaks, and `BrokenPipeError` when nobody
        reads the descriptor `output` any more.
        """
        async with asyncio.timeout(seconds):
            if output is None:
                return await self._reader.read(streams.CHUNK)
            reading = asyncio.create_task(self._reader.read(streams.CHUNK))
            try:
                while not (await asyncio.wait([reading], timeout=_WATCH))[0]:
                    _check_reader(output)
                return reading.result()
            finally:
                reading.cancel()

    async def write(self, data: bytes, seconds: float | None = None) -> None:
        """Send `data`.  Raises `TimeoutError` after `seconds`, and `OSError`."""
        async with asyncio.timeout(seconds):
            self._writer.write(data)
            await self._writer.drain()

    async def end(self) -> None:
        """Say that nothing more is sent.  Raises `OSError`."""
        self._writer.write_eof()

    async def close(self) -> None:
        """Drop the connection.  Can be called twice."""
        self._writer.transport.abort()


def _check_reader(output: int) -> None:
    poll = select.poll()
    poll.register(output, 0)
    if poll.poll(0):
        raise BrokenPipeError


async def connect(address: Address, *, start: bool = True) -> AsyncConnection:
    """Return a connection to the server.  With `start`, the local one is started when it is not running."""
    return AsyncConnection(await streams.connect(address, start=start))


async def open_connection(address: Address, method: str, target: str, protocol: str) -> AsyncConnection:
    """Return a new connection that has become a `protocol` stream."""
    return AsyncConnection(await streams.upgrade(address, method, target, protocol))


async def open_stream(address: Address, method: str, target: str, protocol: str) -> Stream:
    """Return a reader and a writer of a new connection that has become a `protocol` stream."""
    return await streams.upgrade(address, method, target, protocol)


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what `work` returns, which waits for the disk or the network without asyncio."""
    return await asyncio.to_thread(work, *args, **kwargs)


async def shielded(work: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what `work` returns; it goes on when the caller is cancelled."""
    return await asyncio.shield(work(*args, **kwargs))


@contextlib.asynccontextmanager
async def forwarded(address: Address, shed: str, port: int, local: int) -> AsyncIterator[int]:
    """Forward a port while the block lasts; yields the local port, which is `local` unless that is 0."""
    forwarder = Forwarder(address, shed, start=True)
    try:
        bound = await forwarder.listen(Rule(local, port))
        yield bound[0][1]
    finally:
        await forwarder.close()
