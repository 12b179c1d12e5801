"""Starts and creates under way.

Stopping or deleting the shed ends them, instead of waiting until they are done or timed out.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from shed.errors import ConflictError


class Starts:
    """The tasks that bring one shed up, or wait for their turn to."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: dict[asyncio.Task[Any], str | None] = {}
        """With the reason for which each was told to give up."""

    def end(self, reason: str) -> bool:
        """Have all of them give up, for the `reason` that their clients are told; return whether there was any.

        Their undo is still to run: they hold the shed's name until it has.
        """
        for task, told in self._tasks.items():
            if told is None:  # a second cancellation would cut its undo short
                self._tasks[task] = reason
                task.cancel()
        return bool(self._tasks)

    @contextlib.contextmanager
    def under_way(self, doing: str) -> Iterator[None]:
        """Have this task be one of them.

        Raises `ConflictError` (SHED_START_ENDED) when it was told to give up and has.
        """
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = None
        try:
            yield
        except asyncio.CancelledError:
            reason = self._tasks[task]
            if reason is None or task.cancelling() > 1:  # the server ends
                raise
            raise ConflictError(
                f"the {doing} of shed {self._name!r} was ended: {reason}",
                code="SHED_START_ENDED",
                hint="`shed list` shows what there is",
            ) from None
        finally:
            if self._tasks.pop(task) is not None:
                task.uncancel()
