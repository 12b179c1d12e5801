"""Progress of long work: named phases with timings, byte counts, warnings.

Work is given a `Progress` and reports to it.  The caller decides how that is shown: as a bar, plain lines, server-sent
events, or not at all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from shed.errors import UnavailableError


@dataclass(frozen=True, slots=True)
class PhaseEvent:
    """The work entered the phase `name`; `message` is for people."""

    name: str
    message: str


@dataclass(frozen=True, slots=True)
class BytesEvent:
    """`current` of `total` bytes of the thing named `label` are done; `total` is None while unknown."""

    label: str
    current: int
    total: int | None


@dataclass(frozen=True, slots=True)
class BlobEvent:
    """`current` of `total` bytes of one blob of an image are transferred; `total` is None while unknown."""

    digest: str
    label: str
    """What it is: ``kernel``, ``rootfs``, ``layer 2``."""
    status: str
    """``downloading``, ``exists`` (nothing had to be transferred) or ``done``; the last two come once."""
    current: int
    total: int | None


@dataclass(frozen=True, slots=True)
class WarningEvent:
    """Something went wrong, but the work goes on."""

    message: str


Event = PhaseEvent | BytesEvent | BlobEvent | WarningEvent


def _ignore(event: Event) -> None:
    """Drop an event: the sink of work that nobody watches."""


class Stop:
    """Asks work in other threads to give up: `sleep` ends, `check` raises, functions given to `also` are called."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._also: list[Callable[[], object]] = []

    def also(self, call: Callable[[], object]) -> None:
        """Call `call` when the work is to be given up, at once if that was asked already.

        It should end what another thread is waiting for.
        """
        self._also.append(call)
        if self._event.is_set():
            call()

    def set(self) -> None:
        """Ask the work to give up."""
        self._event.set()
        for call in [*self._also]:
            call()

    def check(self) -> None:
        """Raise `UnavailableError` (STOPPED) when the work should be given up."""
        if self._event.is_set():
            raise UnavailableError("stopped before it was done", code="STOPPED", hint="try again")

    def sleep(self, seconds: float) -> None:
        """Wait for `seconds`.  Raises `UnavailableError` (STOPPED) as soon as the work should be given up."""
        self._event.wait(seconds)
        self.check()


@dataclass(slots=True)
class Progress:
    """Passes events to `sink`, and counts in `timings` the milliseconds that the phases of each name took.

    Time before the first phase counts as ``setup``.
    """

    sink: Callable[[Event], None] = _ignore
    timings: dict[str, float] = field(default_factory=dict)
    left: Stop = field(default_factory=Stop)
    """Set when nobody waits for the work any more.  Most work goes on all the same; work that should not watches it."""
    _current: str = "setup"
    _since: float = field(default_factory=time.monotonic)

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

    def finish(self) -> dict[str, float]:
        """End the current phase and return the timings: milliseconds by the name of the phase."""
        self._close(self._current)
        return self.timings

    def _close(self, following: str) -> None:
        now = time.monotonic()
        self.timings[self._current] = self.timings.get(self._current, 0.0) + (now - self._since) * 1000
        self._current, self._since = following, now
