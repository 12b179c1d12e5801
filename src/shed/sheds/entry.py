"""What one server knows of one name beyond the disk: who works on it, what brings it up, the link to its agent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from shed.errors import ConflictError
from shed.sheds.link import Link


class Starts:
    """The tasks that bring one shed up, or wait for their turn to.

    Who stops or deletes the shed ends them, rather than wait until they have come up or timed out.
    """

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


class Entry:
    """One name.  Whoever works on it holds `lock` and says in `doing` what that is."""

    def __init__(self, name: str, link: Link) -> None:
        self.lock = asyncio.Lock()
        self.doing = ""
        self.starts = Starts(name)
        self.link = link
