"""Tasks made of coroutines, and the events that they wait for; `shed.guest.loop` runs them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from typing import Any, Protocol

    class Runner(Protocol):
        """What tasks need of the loop that runs them."""

        def call_soon(self, callback: Callable[[], None]) -> None:
            """Call back in the next round."""

        def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
            """Call back in `seconds`."""

        def report(self, task: Task) -> None:
            """Print what went wrong in a task."""


class Cancelled(BaseException):
    """Thrown into a task at the point where it waits, by `Task.cancel`."""


class Event:
    """A flag that tasks wait for.  `set` wakes all of them; waiting on a set event returns at once."""

    __slots__ = ("_callbacks", "_waiting", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._waiting: list[Task] = []
        self._callbacks: list[Callable[[], None]] = []

    def set(self) -> None:
        """Raise the flag."""
        self.is_set = True
        self.wake()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def then(self, callback: Callable[[], None]) -> None:
        """Call back once, when the flag is raised the next time; at once when it is up."""
        if self.is_set:
            callback()
        else:
            self._callbacks.append(callback)

    def clear(self) -> None:
        """Lower the flag."""
        self.is_set = False

    def wake(self) -> None:
        """Wake everybody who waits now and leave the flag as it is."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for task in waiting:
                task.resume()

    async def wait(self, seconds: float | None = None) -> bool:
        """Return True as soon as the flag is up, or was woken; False after `seconds`."""
        if self.is_set:
            return True
        return await _Pause(self, seconds)

    def add(self, task: Task) -> None:
        """Have `task` resumed with the next `wake`."""
        self._waiting.append(task)

    def discard(self, task: Task) -> None:
        """Forget `task`."""
        if task in self._waiting:
            self._waiting.remove(task)


class _Pause:
    """What a waiting coroutine yields to the loop: the event it waits for, and for how long."""

    __slots__ = ("event", "seconds", "timer")

    def __init__(self, event: Event, seconds: float | None) -> None:
        self.event = event
        self.seconds = seconds

    def __await__(self) -> Generator[_Pause, bool, bool]:
        return (yield self)


class Task:
    """A running coroutine.  `done` is set at its end; an exception nobody expected is printed on the console."""

    __slots__ = ("_coroutine", "_loop", "_pause", "_ready", "_timer", "done", "error", "name", "result")

    def __init__(self, loop: Runner, coroutine: Coroutine[_Pause, bool, Any], name: str) -> None:
        self._loop = loop
        self._coroutine = coroutine
        self._pause: _Pause | None = None
        self._timer: Timer | None = None
        self._ready = False
        self.name = name
        self.done = Event()
        self.result: Any = None
        self.error: BaseException | None = None

    def resume(self, *, fired: bool = True) -> None:
        """Let the coroutine go on in the next round of the loop."""
        if not self._ready and not self.done.is_set:
            self._ready = True
            self._loop.call_soon(self._step_fired if fired else self._step_late)

    def cancel(self) -> None:
        """Throw `Cancelled` into the coroutine where it waits; nothing happens when it has ended."""
        if not self.done.is_set:
            self._loop.call_soon(self._step_cancelled)

    def _step_fired(self) -> None:
        self._step(value=True)

    def _step_late(self) -> None:
        self._step(value=False)

    def _step_cancelled(self) -> None:
        self._step(value=False, error=Cancelled())

    def _leave(self) -> None:
        pause, self._pause = self._pause, None
        if pause is not None:
            pause.event.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _step(self, *, value: bool, error: BaseException | None = None) -> None:
        if self.done.is_set:
            return
        self._ready = False
        first = self._pause is None and error is None
        self._leave()
        try:
            send = self._coroutine.send
            pause = self._coroutine.throw(error) if error is not None else send(None if first else value)  # type: ignore[arg-type]
        except StopIteration as end:
            self.result = end.value
            self.done.set()
        except Cancelled as end:
            self.error = end
            self.done.set()
        except Exception as unexpected:  # noqa: BLE001  one task's bug must not end the others
            self.error = unexpected
            self._loop.report(self)
            self.done.set()
        else:
            self._pause = pause
            pause.event.add(self)
            if pause.seconds is not None:
                self._timer = self._loop.call_later(pause.seconds, self._late)

    def _late(self) -> None:
        self._timer = None
        self.resume(fired=False)


class Timer:
    """A callback at a time; `callback` is None once it ran or was cancelled."""

    __slots__ = ("at", "callback")

    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at = at
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Do not call back."""
        self.callback = None


class Lock:
    """Mutual exclusion between tasks, in the order of their asking."""

    __slots__ = ("_queue", "held")

    def __init__(self) -> None:
        self.held = False
        self._queue: list[Event] = []

    async def __aenter__(self) -> None:
        if not self.held:
            self.held = True
            return
        turn = Event()
        self._queue.append(turn)
        try:
            await turn.wait()
        except BaseException:
            if turn in self._queue:
                self._queue.remove(turn)
            else:
                self._release()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._release()

    def _release(self) -> None:
        if self._queue:
            self._queue.pop(0).set()
        else:
            self.held = False
