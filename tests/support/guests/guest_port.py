"""The guest's real multiplexer in a thread, behind a Unix socket that behaves like QEMU's virtio-serial port: one host
at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from shed.guest import protocol
from shed.guest.loop import Loop, Watch
from shed.guest.mux import Stream, StreamCutError, serve_port
from shed.guest.tasks import Event

ECHO, SINK, SOURCE, COUNT = 10, 11, 12, 13
"""Ports: gives back what it gets; reads nothing; writes zeroes for ever; reads to the end and answers how many bytes
that were.
"""


class SocketPort:
    """What `shed.guest.transport.Port` is for a VM: an empty read is the host's hang-up, and writing waits for the next
    host.
    """

    def __init__(self, loop: Loop, listener: socket.socket) -> None:
        self._loop = loop
        self._listener = listener
        self._knock = loop.watch(os.dup(listener.fileno()))
        self._host: Watch | None = None
        self._came = Event()
        self.hosts = 0
        loop.spawn(self._accept(), name="accept")

    async def _accept(self) -> None:
        while True:
            if self._host is None:
                with contextlib.suppress(BlockingIOError):
                    connection, _ = self._listener.accept()
                    self._host = self._loop.watch(connection.detach())
                    self.hosts += 1
                    self._came.set()
                    continue
            await self._knock.readable.wait(0.01)

    async def _there(self) -> Watch:
        while self._host is None:
            self._came.clear()
            await self._came.wait()
        return self._host

    async def read(self) -> memoryview:
        host = await self._there()
        try:
            data = await host.read(65536)
        except OSError:
            data = b""
        if not data:
            host.close()
            self._host = None
        return memoryview(data)

    def write_now(self, data: memoryview) -> int:
        return self._host.write_now(data) if self._host is not None else 0

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        host = await self._there()
        with contextlib.suppress(OSError):  # the read side sees it too
            await host.write(data)

    def close(self) -> None:
        if self._host is not None:
            self._host.close()
        self._knock.close()


async def _echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


async def _sink(stream: Stream) -> None:
    await stream.gone.wait()


async def _source(stream: Stream) -> None:
    with contextlib.suppress(StreamCutError):
        while True:
            await stream.write(bytes(65536))


async def _count(stream: Stream) -> None:
    total = 0
    while data := await stream.read():
        total += len(data)
    await stream.write(str(total).encode())


SERVICES: dict[int, Callable[[Stream], Coroutine[Any, Any, None]]] = {
    ECHO: _echo,
    SINK: _sink,
    SOURCE: _source,
    COUNT: _count,
}


@contextlib.contextmanager
def guest(path: Path, *, version: int = protocol.PROTOCOL) -> Iterator[SocketPort]:
    """Run a guest whose port is the socket `path`; its agent says that it speaks protocol `version`."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(8)
    listener.setblocking(False)
    loop = Loop()
    port = SocketPort(loop, listener)

    def hello(nonce: str) -> bytes:
        return json.dumps({"nonce": nonce, "agent": "test", "protocol": version}).encode()

    wake_read, wake_write = os.pipe()

    async def stop_when_told() -> None:
        watch = loop.watch(wake_read)
        await watch.read(1)
        watch.close()
        loop.stop()

    loop.spawn(stop_when_told(), name="stop")
    loop.spawn(serve_port(loop, port, SERVICES, hello), name="mux")  # as good as a Port
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield port
    finally:
        os.write(wake_write, b"x")
        thread.join(60)
        os.close(wake_write)
        port.close()
        loop.close()
        listener.close()
        path.unlink()


def run(work: Callable[[], Awaitable[None]], seconds: float = 60) -> None:
    """Run `work`, a host's, in an event loop, with a deadline."""

    async def bounded() -> None:
        async with asyncio.timeout(seconds):
            await work()

    asyncio.run(bounded())
