"""Blocking work beside the event loop, in two pools of threads, so that short work never waits for long work.

Long work is work that waits for others (registries), or reads much (images, directories, disk usage).  Long work that
still waits for a thread is given up at once when nobody needs it any more.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, ParamSpec, TypeVar

from shed.progress import Stop

SHORT_AT_ONCE, LONG_AT_ONCE = 32, 8
"""Most threads of each pool."""
_P = ParamSpec("_P")
_T = TypeVar("_T")


def use_pools(loop: asyncio.AbstractEventLoop) -> None:
    """Let `loop` do short work in a pool of its own.  asyncio's pool has only six threads on two processors."""
    loop.set_default_executor(ThreadPoolExecutor(SHORT_AT_ONCE, "short"))


@cache
def _long() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(LONG_AT_ONCE, "long")


os.register_at_fork(after_in_child=_long.cache_clear)  # a forked process has the pool, and none of its threads


async def in_thread(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Do as `asyncio.to_thread` does, but let a cancelled caller go on only when the thread is done.

    So an undo never races the work that it undoes.
    """
    return await to_the_end(asyncio.to_thread(work, *args, **kwargs))


async def to_the_end(work: Coroutine[Any, Any, _T]) -> _T:
    """Do `work`, also when the caller is cancelled meanwhile, who goes on only when it is done."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def in_long_thread(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Do as `asyncio.to_thread` does, in the pool for long work."""
    call = partial(contextvars.copy_context().run, work, *args, **kwargs)
    return await asyncio.wrap_future(_long().submit(call))


async def stoppable(work: Callable[[Stop], _T], abandoned: Stop | None = None, *, long: bool = False) -> _T:
    """Do `work` in a thread, and ask it to give up when the caller is cancelled or `abandoned` is set.

    A cancelled caller waits until it has.
    """
    stop = Stop()
    if abandoned is not None:
        abandoned.add_callback(stop.set)
    task = asyncio.ensure_future(_in_turn(work, stop) if long else asyncio.to_thread(work, stop))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.gather(task, return_exceptions=True)  # that it gave up is nobody's news
        raise


async def _in_turn(work: Callable[[Stop], _T], stop: Stop) -> _T:
    """Do `work` in the pool for long work.  Raises as `Stop.check` does when it is given up before it began."""
    turn = _long().submit(partial(contextvars.copy_context().run, work, stop))
    stop.add_callback(turn.cancel)
    try:
        return await asyncio.wrap_future(turn)
    except asyncio.CancelledError:
        stop.check()
        raise
