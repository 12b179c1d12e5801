"""Short commands that the server itself runs in a shed, and what they said."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from shed.backends.base import Stream
from shed.errors import BackendError
from shed.execstream import ExecStream, Exit, Output, request_frame
from shed.guest.protocol import ProtocolError

BUSYBOX = "/run/shed-runtime/bin/busybox"
"""It is in every image's guest."""
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

    Raises `BackendError`: AGENT_TIMEOUT after `wait` seconds, AGENT_PROTOCOL when what comes makes no sense, or is
    more than a mebibyte.
    """
    try:
        async with asyncio.timeout(wait):
            command = ExecStream(_MOST_OUTPUT)
            await stream.write(request_frame(words) + command.stdin_end())
            return await _collect(stream, command)
    except TimeoutError:
        raise BackendError(f"{words[0]} did not end within {wait:g} s", code="AGENT_TIMEOUT") from None
    except ProtocolError as error:
        raise BackendError(f"what came of {words[0]} makes no sense: {error}", code="AGENT_PROTOCOL") from None
    finally:
        stream.close()


async def _collect(stream: Stream, command: ExecStream) -> Done:
    stdout, stderr = bytearray(), bytearray()
    while True:
        while (event := command.next()) is not None:
            if isinstance(event, Exit):
                return Done(event.code, stdout.decode(errors="replace"), stderr.decode(errors="replace"), event.error)
            if isinstance(event, Output):
                said = stderr if event.error else stdout
                said += event.data
                if len(said) > _MOST_OUTPUT:
                    raise ProtocolError("it says too much")
        command.feed(await stream.read(_READ))
