"""Commands in a shed that take long: each is heard as it goes on, and has a limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine

from shed.backends.base import Stream
from shed.errors import BackendError
from shed.execstream import ExecStream, Exit, Output
from shed.guest.protocol import ProtocolError
from shed.progress import Stop

Open = Callable[[], Awaitable[Stream]]
"""Opens a stream for one command."""
_READ = 16 << 10
"""Bytes that are taken apart in one turn of the event loop."""


async def run_step(
    open_exec: Open, request: bytes, hear: Callable[[Output], None], *, end: float, abandoned: Stop | None = None
) -> Exit:
    """Run the command of the frame `request` with an empty standard input, until `end` of the monotonic clock.

    `hear` gets what it says.  With `abandoned`, nobody but its client wants it.  Raises `TimeoutError`,
    `UnavailableError` (STOPPED), `BackendError` (AGENT_PROTOCOL) when what comes makes no sense, and what `open_exec`
    does.
    """
    try:
        return await _awaited(_run(await open_exec(), request, hear), end - time.monotonic(), abandoned or Stop())
    except ProtocolError as error:
        raise BackendError(f"what came of the command makes no sense: {error}", code="AGENT_PROTOCOL") from None


async def _awaited(work: Coroutine[None, None, Exit], seconds: float, abandoned: Stop) -> Exit:
    loop, left = asyncio.get_running_loop(), asyncio.Event()
    abandoned.add_callback(lambda: loop.call_soon_threadsafe(left.set))
    running, gone = asyncio.ensure_future(work), asyncio.ensure_future(left.wait())
    try:
        await asyncio.wait((running, gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            return running.result()
        abandoned.check()
        raise TimeoutError
    finally:
        running.cancel()
        gone.cancel()
        await asyncio.gather(running, gone, return_exceptions=True)


async def _run(stream: Stream, request: bytes, hear: Callable[[Output], None]) -> Exit:
    try:
        state = ExecStream()
        await stream.write(request + state.stdin_end())
        while True:
            while (event := state.next()) is not None:
                if isinstance(event, Exit):
                    return event
                if isinstance(event, Output):
                    hear(event)
            state.feed(await stream.read(_READ))
    finally:
        stream.close()
