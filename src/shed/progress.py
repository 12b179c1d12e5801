"""Progress of long work: named phases with timings, byte counts, warnings.

Work takes a `Progress` and reports to it; who made it decides what is shown (a bar, plain lines, server-sent events,
nothing).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from shed.errors import UnavailableError


@dataclass(frozen=True, slots=True)
class PhaseEvent:
    """Work entered the phase `name`; `message` is for people."""

    name: str
    message: str


@dataclass(frozen=True, slots=True)
class BytesEvent:
    """`current` of `total` bytes of the thing called `label` are done; `total` is None while unknown."""

    label: str
    current: int
    total: int | None


@dataclass(frozen=True, slots=True)
class BlobEvent:
    """`current` of `total` bytes of one blob of an image are here; `total` is None while unknown."""

    digest: str
    label: str
    """What it is: ``kernel``, ``rootfs``, ``layer 2``."""
    status: str
    """``downloading``, ``exists`` (it was here) or ``done``; the last two are said once."""
    current: int
    total: int | None


@dataclass(frozen=True, slots=True)
class WarningEvent:
    """Something went wrong that does not fail the work."""

    message: str


Event = PhaseEvent | BytesEvent | BlobEvent | WarningEvent


def _ignore(event: Event) -> None:
    """The sink of work that nobody watches."""


class Stop:
    """Tells work in other threads to give up: `sleep` ends early, `check` raises, and what `also` was given is called."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._also: list[Callable[[], object]] = []

    def also(self, call: Callable[[], object]) -> None:
        """Have `call` called when the work is to be given up, which may be now; it ends what other threads wait for."""
        self._also.append(call)
        if self._event.is_set():
            call()

    def set(self) -> None:
        """Have all of it give up."""
        self._event.set()
        for call in [*self._also]:
            call()

    def check(self) -> None:
        """Raise `UnavailableError` when the work should be given up."""
        if self._event.is_set():
            raise UnavailableError("stopped before it was done", code="STOPPED", hint="try again")

    def sleep(self, seconds: float) -> None:
        """Wait.  Raises `UnavailableError` when there is nothing more to wait for."""
        self._event.wait(seconds)
        self.check()


@dataclass(slots=True)
class Progress:
    """Passes events to `sink` and keeps the milliseconds each phase took, in `timings`, merged by name.

    Time before the first phase counts as ``setup``.
    """

    sink: Callable[[Event], None] = _ignore
    timings: dict[str, float] = field(default_factory=dict)
    left: Stop = field(default_factory=Stop)
    """Set when nobody waits for the work any more.  Most work goes on all the same; what should not asks to be told
    (`Stop.also`).
    """
    _current: str = "setup"
    _since: float = field(default_factory=time.monotonic)

    def phase(self, name: str, message: str = "") -> None:
        """Close the running phase and enter `name`; an empty `message` is timed but not shown."""
        self._close(name)
        if message:
            self.sink(PhaseEvent(name, message))

    def bytes(self, label: str, current: int, total: int | None = None) -> None:
        """Report how far the transfer `label` is, in bytes."""
        self.sink(BytesEvent(label, current, total))

    def blob(self, event: BlobEvent) -> None:
        """Report how far one blob is."""
        self.sink(event)

    def warn(self, message: str) -> None:
        """Report a problem that does not fail the work."""
        self.sink(WarningEvent(message))

    def finish(self) -> dict[str, float]:
        """Close the running phase and return the timings, in milliseconds by phase name."""
        self._close(self._current)
        return self.timings

    def _close(self, following: str) -> None:
        now = time.monotonic()
        self.timings[self._current] = self.timings.get(self._current, 0.0) + (now - self._since) * 1000
        self._current, self._since = following, now
