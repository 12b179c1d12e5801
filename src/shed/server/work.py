"""Long work that a request asks for.

It belongs to the server, not to the request, and may be watched as server-sent events.

A client that leaves does not stop it: a create goes on to its end, and `shed list` shows it.  A pull, also one that a
create begins with, ends with the client that it is for, unless that said ``?detach=true``: what comes from outside
comes only as long as somebody waits for it. Of several clients that want the same image one pulls and the others wait,
so the last one to leave ends it.  The server's own end cancels all work, and a stop or a forced delete of the shed that
it brings up; then its undo runs.  Work that has a `leave` ends with its client, and so does what has come of it: the
answer goes on until then.

``?progress=blob`` adds an event for each blob of an image that is pulled, again and again until it is here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from msgspec import Struct

from shed.api import events
from shed.api.base import WorkParams
from shed.errors import ShedError, UnavailableError
from shed.progress import BlobEvent, BytesEvent, Event, OutputEvent, PhaseEvent, Progress, Stop, WarningEvent, on_wait
from shed.server.call import Call, Work
from shed.server.failures import explain
from shed.server.http import KEEPALIVE, Events, Reply, Request, event_block, json_answer

log = logging.getLogger(__name__)
_FIRST_EVENT = 10.0
"""Seconds of silence after which the answer begins all the same, before its client gives up: the work waits for other
work, most likely.
"""
_MOST_UNREAD = 1000
Task = asyncio.Task[Any]


class Workers:
    """The long work under way."""

    def __init__(self) -> None:
        self._tasks: set[Task] = set()

    async def run(self, call: Call[Any, Any], work: Work[Any]) -> Reply:
        """Do `work` and return its result, or events when the client asks for them.

        A failure before the first event is raised: the answer then carries its proper status.
        """
        request, wanted = call.request, call.params
        assert isinstance(wanted, WorkParams)
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        progress = Progress(
            lambda event: None if isinstance(event, BlobEvent) and wanted.progress is None else _put(loop, queue, event)
        )
        task = asyncio.create_task(_run(work.run, progress, f"{request.method} /{'/'.join(request.path)}"))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: queue.put_nowait(None))
        task.add_done_callback(_look_at)
        call.action.follow(task, call.endpoint.status)
        watch = _Watch(request, Stop() if wanted.detach else progress.abandoned)
        keeper = None if work.leave is None else self._attend(task, watch, work.leave)
        if not request.wants_events:
            try:
                return json_answer(await asyncio.shield(task), status=call.endpoint.status)
            finally:
                await watch.end()
        try:
            async with asyncio.timeout(_FIRST_EVENT):
                first = await queue.get()
        except TimeoutError:
            first = PhaseEvent("wait", "waiting")
        if first is None:
            try:
                await task
            except BaseException:
                await watch.end()
                raise
        return Events(_watched(_blocks(first, queue, task, keeper), watch))

    def _attend(self, task: Task, watch: _Watch, leave: Callable[[], Awaitable[None]]) -> Task:
        """Return what ends `task`, and what has come of it, when its client leaves, or the server."""
        task.add_done_callback(lambda _: watch.give_up() if task.cancelled() or task.exception() else None)

        async def attend() -> None:
            try:
                await watch.gone.wait()
            finally:
                if not task.cancelling():  # a second time would cut its undo short
                    task.cancel("its client has left")
                await asyncio.wait([task])
                await leave()

        keeper = asyncio.create_task(attend())
        self._tasks.add(keeper)
        keeper.add_done_callback(self._tasks.discard)
        return keeper

    async def close(self) -> None:
        """Cancel what is under way and wait until all of it is undone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Watch:
    """Sets `left` when the client of `request` has hung up before the answer was sent."""

    def __init__(self, request: Request, left: Stop) -> None:
        self._left = left
        self.gone = asyncio.Event()
        self._task = asyncio.create_task(self._run(request))

    async def _run(self, request: Request) -> None:
        if request.left is not None:
            with contextlib.suppress(ConnectionError):
                await request.left()
            self.give_up()

    async def end(self) -> None:
        """Look no more: the connection is free for what comes next."""
        self._task.cancel()
        await asyncio.wait([self._task])

    def give_up(self) -> None:
        """Take the client for gone."""
        self._left.set()
        self.gone.set()


async def _watched(blocks: AsyncGenerator[bytes, None], watch: _Watch) -> AsyncGenerator[bytes, None]:
    """Yield `blocks`; when they are not taken to their end, the client has left."""
    try:
        async with contextlib.aclosing(blocks):
            async for block in blocks:
                yield block
    except BaseException:  # a connection that was cut, too: its token has been revoked
        watch.give_up()
        raise
    finally:
        await watch.end()


async def _run(work: Callable[[Progress], Awaitable[Any]], progress: Progress, what: str) -> Any:
    """Do `work`; a failure is in the log even when nobody waits for the answer any more."""
    on_wait.set(progress.warn)  # this is a task of its own, and so is its context
    try:
        return await work(progress)
    except asyncio.CancelledError as cancelled:
        raise UnavailableError(
            str(cancelled) or "the server is stopping",
            code="SERVER_STOPPING",
            hint="what was begun is undone; try again",
        ) from None
    except ShedError as error:
        log.warning("%s: %s: %s", what, error.code, error)
        raise


def _look_at(task: Task) -> None:
    """Have asyncio know that the failure of `task` is dealt with, should its client be gone."""
    if not task.cancelled():
        task.exception()


def _put(loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[Event | None], event: Event) -> None:
    """Have a client be told of `event`; one that does not read is not told all that came meanwhile."""
    if queue.qsize() < _MOST_UNREAD or not isinstance(event, BytesEvent | BlobEvent | OutputEvent):
        loop.call_soon_threadsafe(queue.put_nowait, event)


async def _blocks(
    first: Event | None, queue: asyncio.Queue[Event | None], task: Task, keeper: Task | None
) -> AsyncGenerator[bytes, None]:
    event = first
    while event is not None:
        yield event_block(*_told(event))
        while True:
            try:
                async with asyncio.timeout(KEEPALIVE):
                    event = await queue.get()
                break
            except TimeoutError:
                yield b":\n\n"
    try:
        result = await task
    except Exception as error:  # noqa: BLE001  explain() logs what is not meant for users
        told = explain(error)
        hint = told.next_step or None
        yield event_block(
            "error", events.ErrorEvent(code=told.code, message=told.message, hint=hint, status=told.http_status)
        )
    else:
        yield event_block("complete", result)
    while keeper is not None and not (await asyncio.wait([keeper], timeout=KEEPALIVE))[0]:
        yield b":\n\n"


def _told(event: Event) -> tuple[str, Struct]:
    """Return an event's name and data, as the contract has them."""
    match event:
        case PhaseEvent(name, message):
            return "progress", events.ProgressEvent(phase=name, message=message)
        case WarningEvent(message):
            return "progress", events.ProgressEvent(phase="", message=message, warning=True)
        case BytesEvent(label, current, total):
            return "bytes", events.BytesEvent(label=label, current=current, total=total)
        case OutputEvent(line):
            return "output", events.OutputEvent(line=line)
        case BlobEvent(digest, label, status, current, total):
            return "blob", events.BlobEvent(digest=digest, label=label, status=status, current=current, total=total)
