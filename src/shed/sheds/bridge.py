"""Carrying raw bytes between a client's socket and a stream into a guest, with backpressure both ways."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from shed.backends.base import Stream
from shed.errors import BackendError

_READ = 65536
_LINGER_NOT = struct.pack("ii", 1, 0)
"""struct linger: a TCP socket that is closed with it sends a reset."""
_LEAVING = 5.0
"""Seconds that a client has for leaving, after the last word of the guest."""


async def bridge(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: Stream, early: bytes, *, half_close: bool
) -> None:
    """Carry bytes until both sides are done; `early` came from the client already.

    With `half_close`, the end of one direction is passed on and the other one goes on.  Without, the guest's end is the
    end, once the client has left, and the client's is, too: whoever stops sending there has gone.  A stream that is
    cut, or a server that ends, resets the client's connection, so that it is not taken for a proper end.
    """
    ways = (
        asyncio.create_task(_to_client(stream, writer, pass_end=half_close)),
        asyncio.create_task(_to_guest(reader, stream, early, pass_end=half_close)),
    )
    try:
        done, _ = await asyncio.wait(
            ways, return_when=asyncio.FIRST_EXCEPTION if half_close else asyncio.FIRST_COMPLETED
        )
        for way in done:
            way.result()
        if not half_close and ways[0] in done:
            ways[1].cancel()
            await asyncio.wait(ways)
            await _see_off(reader, writer)
    except OSError:
        pass  # the client has gone; what passing on the end then finds, ENOTCONN, is no ConnectionError
    except BackendError:
        _reset(writer)
    except asyncio.CancelledError:
        _reset(writer)
        raise
    finally:
        for way in ways:
            way.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError, BackendError):
                await way


async def _to_client(stream: Stream, writer: asyncio.StreamWriter, *, pass_end: bool) -> None:
    while data := await stream.read(_READ):
        writer.write(data)
        await writer.drain()
    if pass_end and writer.can_write_eof():
        writer.write_eof()


async def _to_guest(reader: asyncio.StreamReader, stream: Stream, early: bytes, *, pass_end: bool) -> None:
    data = early or await reader.read(_READ)
    while data:
        await stream.write(data)
        data = await reader.read(_READ)
    if pass_end:
        await stream.write_eof()


async def _see_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Throw away what the client still sends.

    If that were refused, the client could lose the guest's last output, which is on its way.
    """
    if writer.can_write_eof():
        writer.write_eof()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LEAVING):
            while await reader.read(_READ):
                pass


def _reset(writer: asyncio.StreamWriter) -> None:
    """Drop the connection so that a TCP client sees a reset.

    A client of the Unix socket sees a hangup while its own side is still open.
    """
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    writer.transport.abort()
