"""A session by standard input and output: each message is a line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator

from shed.client.address import Address
from shed.errors import UsageError
from shed.mcp.conversation import MOST_MESSAGE, Conversation
from shed.mcp.grant import Grant
from shed.mcp.session import Session

_END_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


async def serve(address: Address, grant: Grant) -> list[str]:
    """Serve the client at the other end of standard input and output, until it leaves, a signal, or its time is up.

    Returns a sentence for each thing of the session that could not be deleted.  Raises `UsageError` when the two are no
    pipes.
    """
    reader, writer = await _streams()
    session = Session(address, grant)
    conversation = Conversation(session, lambda line: writer.write(f"{line}\n".encode()))
    serving = asyncio.create_task(_hear(conversation, reader, writer))
    loop = asyncio.get_running_loop()
    for number in _END_SIGNALS:
        loop.add_signal_handler(number, serving.cancel)
    try:
        with contextlib.suppress(TimeoutError, asyncio.CancelledError, ConnectionError):
            async with asyncio.timeout(grant.seconds):
                await serving
    finally:
        for number in _END_SIGNALS:  # a client that is in a hurry must not keep us from deleting
            loop.add_signal_handler(number, lambda: None)
        await conversation.close()
        left = await session.close()
    return left


async def _hear(conversation: Conversation, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async for line in _lines(reader):
        if line is None:
            conversation.too_long()
        elif line.strip():
            conversation.hear(line)
        await writer.drain()  # a client that does not read is not heard


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[bytes | None]:
    """Yield lines as they come; None for one of more than `MOST_MESSAGE` bytes."""
    long = False
    while True:
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError as error:
            await reader.readexactly(error.consumed)
            long = True
        except asyncio.IncompleteReadError:
            return
        else:
            yield None if long else line
            long = False


async def _streams() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return standard input and output, which nothing else in this process reads or writes from now on."""
    loop = asyncio.get_running_loop()
    incoming, outgoing = os.fdopen(os.dup(0), "rb", 0), os.fdopen(os.dup(1), "wb", 0)
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    reader = asyncio.StreamReader(limit=MOST_MESSAGE)
    try:
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), incoming)
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, outgoing)
    except ValueError:
        raise UsageError(
            "standard input and output are not pipes", hint="an MCP client starts this; see docs/reference/mcp.md"
        ) from None
    return reader, asyncio.StreamWriter(transport, protocol, None, loop)
