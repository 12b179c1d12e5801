"""Progress of long work: named phases with timings, byte counts, warnings.

Work is given a `Progress` and reports to it.  The caller decides how that is shown: as a bar, plain lines, server-sent
events, or not at all.
"""

from __future__ import annotations

import time
from contextvars import ContextVar

from shed.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class _Value:
    """Is equal to another of its class with the same fields.  No dataclass: every command starts by importing this."""

    __slots__: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self.__slots__))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({fields})"


class PhaseEvent(_Value):
    """The work entered the phase `name`; `message` is for people."""

    __match_args__ = ("name", "message")
    __slots__ = ("message", "name")

    def __init__(self, name: str, message: str) -> None:
        self.name = name
        self.message = message


class BytesEvent(_Value):
    """`current` of `total` bytes of the thing named `label` are done; `total` is None while unknown."""

    __match_args__ = ("label", "current", "total")
    __slots__ = ("current", "label", "total")

    def __init__(self, label: str, current: int, total: int | None) -> None:
        self.label = label
        self.current = current
        self.total = total


class BlobEvent(_Value):
    """`current` of `total` bytes of one blob of an image are transferred; `total` is None while unknown.

    `label` says what it is: ``kernel``, ``rootfs``, ``layer 2``.  `status` is ``downloading``, ``exists`` (nothing had
    to be transferred) or ``done``; the last two come once.
    """

    __match_args__ = ("digest", "label", "status", "current", "total")
    __slots__ = ("current", "digest", "label", "status", "total")

    def __init__(self, digest: str, label: str, status: str, current: int, total: int | None) -> None:
        self.digest = digest
        self.label = label
        self.status = status
        self.current = current
        self.total = total


class WarningEvent(_Value):
    """Something went wrong, but the work goes on."""

    __match_args__ = ("message",)
    __slots__ = ("message",)

    def __init__(self, message: str) -> None:
        self.message = message


class OutputEvent(_Value):
    """A program that is part of the work has said `line`."""

    __match_args__ = ("line",)
    __slots__ = ("line",)

    def __init__(self, line: str) -> None:
        self.line = line


Event = PhaseEvent | BytesEvent | BlobEvent | WarningEvent | OutputEvent


def _log_wait(message: str) -> None:
    import logging  # noqa: PLC0415  seldom needed

    logging.getLogger(__name__).warning("%s", message)


on_wait: ContextVar[Callable[[str], None]] = ContextVar("on_wait", default=_log_wait)
"""Is told which lock is waited for (`shed.fsutil.locked`); writes to the log unless somebody watches."""


def _ignore(event: Event) -> None:
    """Drop an event: the sink of work that nobody watches."""


class Stop:
    """Asks work in other threads to give up: `sleep` ends, `check` raises, callbacks are called."""

    def __init__(self) -> None:
        import threading  # noqa: PLC0415  clients of a server do not need it

        self._event = threading.Event()
        self._callbacks: list[Callable[[], object]] = []

    def add_callback(self, call: Callable[[], object]) -> None:
        """Call `call` when the work is to be given up, at once if that was asked already.

        It should end what another thread is waiting for.
        """
        self._callbacks.append(call)
        if self._event.is_set():
            call()

    def set(self) -> None:
        """Ask the work to give up."""
        self._event.set()
        for call in [*self._callbacks]:
            call()

    def check(self) -> None:
        """Raise `UnavailableError` (STOPPED) when the work should be given up."""
        if self._event.is_set():
            raise UnavailableError("stopped before it was done", code="STOPPED", hint="try again")

    def sleep(self, seconds: float) -> None:
        """Wait for `seconds`.  Raises `UnavailableError` (STOPPED) as soon as the work should be given up."""
        self._event.wait(seconds)
        self.check()


class Progress:
    """Passes events to `sink`, and counts in `timings` the milliseconds that the phases of each name took.

    Time before the first phase counts as ``setup``.
    """

    def __init__(self, sink: Callable[[Event], None] = _ignore, *, abandoned: Stop | None = None) -> None:
        self.sink = sink
        self.timings: dict[str, float] = {}
        self.abandoned = abandoned or Stop()
        """Set when nobody waits for the work any more.  Most work goes on all the same."""
        self._current = "setup"
        self._since = time.monotonic()

    def phase(self, name: str, message: str = "") -> None:
        """End the current phase and enter `name`.  With an empty `message` the phase is timed, but not shown."""
        self._close(name)
        if message:
            self.sink(PhaseEvent(name, message))

    def bytes(self, label: str, current: int, total: int | None = None) -> None:
        """Report how many bytes of the transfer `label` are done."""
        self.sink(BytesEvent(label, current, total))

    def blob(self, event: BlobEvent) -> None:
        """Report how much of one blob is done."""
        self.sink(event)

    def warn(self, message: str) -> None:
        """Report a problem that does not fail the work."""
        self.sink(WarningEvent(message))

    def output(self, line: str) -> None:
        """Report what a program that is part of the work has said."""
        self.sink(OutputEvent(line))

    def finish(self) -> dict[str, float]:
        """End the current phase and return the timings: milliseconds by the name of the phase."""
        self._close(self._current)
        return self.timings

    def _close(self, following: str) -> None:
        now = time.monotonic()
        self.timings[self._current] = self.timings.get(self._current, 0.0) + (now - self._since) * 1000
        self._current, self._since = following, now
