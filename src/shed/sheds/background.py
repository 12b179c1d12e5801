"""Work that a manager does beside what it is asked for, until it closes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from shed.errors import ShedError

log = logging.getLogger(__name__)


class Background:
    """Tasks of which nobody waits for the result.  What goes wrong in one is logged, and ends that one alone."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """Do `work`, which the log calls `what`."""

        async def logged() -> None:
            try:
                await work
            except (ShedError, TimeoutError) as error:
                log.warning("%s: %s", what, str(error) or "no answer in time; tried again when it is needed")
            except Exception:
                log.exception("%s failed", what)

        task = asyncio.create_task(logged(), name=what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: work.close())  # when it was cancelled before it began

    async def close(self) -> None:
        """End all of it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
