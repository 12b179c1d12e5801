"""Two pools of threads: what waits for a registry holds up nobody else, and what waits for its turn can be given up."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from shed.errors import UnavailableError
from shed.progress import Stop
from shed.threads import LONG_AT_ONCE, in_long_thread, in_thread, stoppable, use_pools


@asynccontextmanager
async def full() -> AsyncIterator[threading.Event]:
    """Have all threads for long work be busy, and as many again wait for one, until the event is set."""
    use_pools(asyncio.get_running_loop())
    go, begun = threading.Event(), threading.Semaphore(0)

    def work(stop: Stop) -> bool:
        begun.release()
        return go.wait(60)

    tasks = [asyncio.create_task(stoppable(work, long=True)) for _ in range(2 * LONG_AT_ONCE)]
    for _ in range(LONG_AT_ONCE):
        await asyncio.to_thread(begun.acquire)
    try:
        yield go
    finally:
        go.set()
        assert all(await asyncio.gather(*tasks))


async def test_short_work_does_not_wait_for_long_work() -> None:
    """Forty pulls from a registry that said nothing froze the server for its owner, too."""
    async with full() as go:
        assert await in_thread(go.is_set) is False
        assert await asyncio.to_thread(lambda: 7) == 7
        assert await stoppable(lambda stop: 8) == 8
        later = asyncio.create_task(in_long_thread(lambda: 9))
        go.set()
        assert await later == 9


async def test_what_waits_for_its_turn_can_be_given_up() -> None:
    """By the last client that leaves, or by the server's end: no thread is needed for that, and none is used."""
    async with full() as go:
        left = Stop()
        ran: list[Stop] = []
        waiting = asyncio.create_task(stoppable(ran.append, left, long=True))
        cancelled = asyncio.create_task(stoppable(ran.append, long=True))
        await asyncio.sleep(0)
        left.set()
        with pytest.raises(UnavailableError) as caught:
            await waiting
        assert caught.value.code == "STOPPED"
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert not go.is_set()
        assert not ran
