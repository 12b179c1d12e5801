"""What carries bytes between a client and a shed, when the client leaves in the middle."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import pytest

from shed.sheds import ports
from shed.sheds.bridge import bridge
from support.ports import free_port
from support.servers.world import World, create


class Silent:
    """A stream into a guest that says nothing, and ends when it is told to."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def read(self, size: int) -> bytes:
        """Wait for the end."""
        await self.ended.wait()
        return b""

    async def write(self, data: bytes) -> None:
        """Take what comes."""

    async def write_eof(self) -> None:
        """Take the end."""


async def test_a_client_that_has_reset_when_the_end_is_passed_on_has_gone() -> None:
    """The end of the guest meets a connection that is no more, before the loop has seen that: no error."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    accepted.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=accepted)
    stream = Silent()
    carrying = asyncio.create_task(bridge(reader, writer, stream, b"", half_close=True))  # type: ignore[arg-type]
    for _ in range(5):  # both ways wait
        await asyncio.sleep(0)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    stream.ended.set()
    await carrying
    writer.close()


async def test_a_connection_that_fails_leaves_its_descriptor_free(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next connections get the descriptor of one that ended in an error, and are served."""
    port = free_port()

    async def failing(*_: Any, **__: Any) -> None:
        raise OSError("no connection")

    async with world.manager() as manager:
        await create(manager, "dev", ports=[f"{port}:7"])
        with monkeypatch.context() as patched:
            patched.setattr(ports, "bridge", failing)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b""
            writer.close()
        for _ in range(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello")
            writer.write_eof()
            assert await reader.read() == b"hello"
            writer.close()
