"""A guest on a Unix socket of which a test decides every byte."""

from __future__ import annotations

import asyncio
import json

from shed.backends import mux
from shed.guest import protocol


class ScriptedGuest:
    """What listens at `path` while the block lasts."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._connections: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> ScriptedGuest:
        self._server = await asyncio.start_unix_server(self._connected, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        for writer in self._writers:
            writer.close()
        self._server.close()
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self._connections.put_nowait((reader, writer))

    async def host(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await self._connections.get()

    async def link(self) -> tuple[mux.MuxConnection, asyncio.StreamReader, asyncio.StreamWriter]:
        """Have the host connect, and say hello to it; return its link, and the guest's end of it."""
        connecting = asyncio.create_task(mux.connect(self.path))
        reader, writer = await self.host()
        writer.write(hello())
        await take_attach(reader, writer)
        return await connecting, reader, writer


def hello(nonce: str = "n1") -> bytes:
    payload = json.dumps({"nonce": nonce, "agent": "scripted", "protocol": protocol.PROTOCOL}).encode()
    return protocol.MAGIC + protocol.mux_frame(protocol.HELLO, 0, payload)


async def take_attach(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, nonce: str = "n1") -> None:
    """Read the host's attach and its question to port 0, and refuse that as an agent does."""
    expected = protocol.MAGIC + protocol.mux_frame(protocol.ATTACH, 0, nonce.encode())
    assert await reader.readexactly(len(expected)) == expected
    kind, number, payload = await read_frame(reader)
    assert (kind, payload) == (protocol.OPEN, bytes(4))
    writer.write(protocol.mux_frame(protocol.RESET, number, b"nothing listens on port 0"))


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, int, bytes]:
    header = await reader.readexactly(protocol.MUX_HEADER)
    length = int.from_bytes(header[5:9], "big")
    return header[0], int.from_bytes(header[1:5], "big"), await reader.readexactly(length)
