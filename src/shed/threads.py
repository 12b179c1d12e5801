"""Blocking work beside the event loop: short work in one pool of threads, long work in another, so that none waits for the other.

Long is what waits for others (registries), or reads without end in sight (images, folders, what takes up space).  What
waits there for its turn is given up at once, without a thread, when nobody wants it any more.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import ParamSpec, TypeVar

from shed.progress import Stop

SHORT_AT_ONCE, LONG_AT_ONCE = 32, 8
"""Threads of each pool, at most."""
_P = ParamSpec("_P")
_T = TypeVar("_T")


def use_pools(loop: asyncio.AbstractEventLoop) -> None:
    """Have `loop` do short work in a pool of its own; asyncio's has six threads on a machine with two processors."""
    loop.set_default_executor(ThreadPoolExecutor(SHORT_AT_ONCE, "short"))


@cache
def _long() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(LONG_AT_ONCE, "long")


async def in_thread(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """As `asyncio.to_thread`, but a cancelled caller goes on only when the thread is done: an undo never races the work it undoes."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def in_long_thread(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """As `asyncio.to_thread`, for work that takes its time."""
    call = partial(contextvars.copy_context().run, work, *args, **kwargs)
    return await asyncio.wrap_future(_long().submit(call))


async def stoppable(work: Callable[[Stop], _T], left: Stop | None = None, *, long: bool = False) -> _T:
    """Do `work` in a thread; when the caller is cancelled, or nobody is left to wait for it, it is told to give up, and waited for."""
    stop = Stop()
    if left is not None:
        left.also(stop.set)
    task = asyncio.ensure_future(_in_turn(work, stop) if long else asyncio.to_thread(work, stop))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([task])
        raise


async def _in_turn(work: Callable[[Stop], _T], stop: Stop) -> _T:
    """Do `work` in the pool for long work.  Raises what `Stop.check` does when it is given up before its turn."""
    turn = _long().submit(partial(contextvars.copy_context().run, work, stop))
    stop.also(turn.cancel)
    try:
        return await asyncio.wrap_future(turn)
    except asyncio.CancelledError:
        stop.check()
        raise
