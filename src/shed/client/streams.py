"""The same connections as `shed.client.transport` makes, as asyncio's streams."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct

from shed.client import transport
from shed.client.address import Address
from shed.client.transport import ANSWER_TIMEOUT, HEAD_END, INTERIM, MOST_INTERIM, SWITCHED

CHUNK = 1 << 17
_LINGER_NOT = struct.pack("ii", 1, 0)
"""struct linger: a TCP socket that is closed with it sends a reset."""
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(address: Address, *, start: bool = True) -> Streams:
    """Return a connection to the server.

    `shed.client.transport.connect` makes it, in a thread: it may have to start the server.
    """
    sock = await asyncio.to_thread(transport.connect, address, start=start)
    return await asyncio.open_connection(sock=socket.socket(fileno=sock.detach()), limit=CHUNK)


async def upgrade(address: Address, method: str, target: str, protocol: str, *, start: bool = True) -> Streams:
    """Return a connection that has become a `protocol` stream; see `shed.client.transport.upgrade`."""
    reader, writer = await connect(address, start=start)
    try:
        writer.write(transport.upgrade_request(address, method, target, protocol))
        limit: float | None = ANSWER_TIMEOUT
        for _ in range(MOST_INTERIM):
            async with asyncio.timeout(limit):
                head = (await reader.readuntil(HEAD_END)).removesuffix(HEAD_END)
            limit = None
            if not head.startswith(INTERIM):
                break
        if head.startswith(SWITCHED):
            return reader, writer
        async with asyncio.timeout(ANSWER_TIMEOUT):
            body = await reader.readexactly(transport.body_length(head))
        raise transport.refusal(address, head, body)
    except TimeoutError:
        writer.transport.abort()
        raise transport.silent(address, ANSWER_TIMEOUT) from None
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        writer.transport.abort()
        raise transport.left(address) from None
    except BaseException:
        writer.transport.abort()
        raise


class CutError(Exception):
    """A connection through a server ended before its time."""


async def carry(one: Streams, other: Streams, *, halves: bool = True) -> None:
    """Carry bytes between a local connection and `other`, which leads through a server, until both halves have ended.

    A reset of one is a reset of the other; so is the end of a server, which has no other sign on a Unix socket than
    that both of its halves end at once.  Without `halves`, as over ssh, every end of `other` ends both of its halves,
    and counts as a proper one.  Closes both.
    """
    ended: list[bool] = [] if halves else [True]
    ways = (
        asyncio.create_task(_carry(one[0], other[1], ended)),
        asyncio.create_task(_carry_back(other, one[1], ended)),
    )
    try:
        done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
        for way in done:
            way.result()
    except BaseException as error:
        reset(one[1])
        reset(other[1])
        if not isinstance(error, ConnectionError | CutError):
            raise
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for _, writer in (one, other):
            writer.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ended: list[bool]) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    ended.append(True)
    writer.write_eof()


async def _carry_back(server: Streams, writer: asyncio.StreamWriter, ended: list[bool]) -> None:
    while data := await server[0].read(CHUNK):
        writer.write(data)
        await writer.drain()
    if not ended and hung_up(server[1]):
        raise CutError
    writer.write_eof()


def hung_up(writer: asyncio.StreamWriter) -> bool:
    """Say whether the other side has closed both halves of a connection.

    Where ours is open yet, that is no proper end.
    """
    poll = select.poll()
    poll.register(writer.get_extra_info("socket"), 0)
    return bool(poll.poll(0))


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection so that, over TCP, the other side sees a reset."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    writer.transport.abort()
