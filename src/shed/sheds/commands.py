"""Short commands that the server itself runs in a shed, and what they said."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from shed.backends.base import Stream
from shed.errors import BackendError
from shed.guest.protocol import (
    DATA_FRAME,
    EXEC_REQUEST,
    EXIT_CODE,
    STDERR,
    STDIN_EOF,
    FrameDecoder,
    ProtocolError,
    exec_frame,
)
from shed.untrusted import load_exit

_MOST_OUTPUT = 1 << 20
_READ = 4096
"""Bytes that are taken apart in one turn of the event loop."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended, and what it said; `error` is why it did not even start."""

    code: int
    stdout: str
    stderr: str
    error: str | None


async def run(stream: Stream, words: list[str], *, wait: float) -> Done:
    """Run `words` over an exec stream, with an empty standard input, and close it.

    Raises `BackendError`: COMMAND_TIMEOUT after `wait` seconds, AGENT_PROTOCOL when what comes makes no sense, or is
    more than a mebibyte.
    """
    try:
        async with asyncio.timeout(wait):
            await stream.write(exec_frame(EXEC_REQUEST, json.dumps({"cmd": words}).encode()) + exec_frame(STDIN_EOF))
            return await _collect(stream)
    except TimeoutError:
        raise BackendError(f"{words[0]} did not end within {wait:g} s", code="COMMAND_TIMEOUT") from None
    except (ProtocolError, ValueError) as error:
        raise BackendError(f"what came of {words[0]} makes no sense: {error}", code="AGENT_PROTOCOL") from None
    finally:
        stream.close()


async def _collect(stream: Stream) -> Done:
    decoder = FrameDecoder(_MOST_OUTPUT)
    said = {DATA_FRAME: bytearray(), STDERR: bytearray()}
    while True:
        while frame := decoder.frame():
            kind, payload = frame
            if kind == EXIT_CODE:
                code, _, error = load_exit(payload)
                stdout, stderr = (said[kind].decode(errors="replace") for kind in (DATA_FRAME, STDERR))
                return Done(code, stdout, stderr, error)
            if kind in said:
                said[kind] += payload
                if len(said[kind]) > _MOST_OUTPUT:
                    raise ProtocolError("it says too much")
        data = await stream.read(_READ)
        if not data:
            raise ProtocolError("the stream ended before the command")
        decoder.feed(data)
