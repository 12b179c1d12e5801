"""What a guest may cost the server by its link alone.

Its root can send whatever it likes, as fast as the port takes it.

Bytes of open streams are not counted: a guest sends them only when somebody has read those before.  What is counted
moves nothing: frames about streams, frames without data, bytes that belong to no session, and sessions that break.  An
honest guest stays far below.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from shed.backends.base import LinkAbusedError

IDLE_FRAMES, IDLE_BURST = 20_000, 40_000
"""Frames that carry no byte of an open stream: a second, and in one go.  At 60 MB/s into the guest there are 500
credits a second, and three for each stream that comes and goes; they take a twentieth of a processor at the limit.
"""
_FRAME_BYTES = 64
"""Bytes of payload of such a frame that count as another one."""
_MOST_OWED = 16 << 20
"""Bytes of closed streams that may come for nothing."""
NOISE, NOISE_BURST = 64 * 1024, 4 << 20
"""Bytes outside any session: a second, and in one go.  What an earlier session left over has less than a mebibyte."""
BREAKS, BREAK_BURST = 0.1, 8.0
"""Sessions that end in nonsense: a second, and in one go."""


class Allowance:
    """So many a second, of what adds up to `burst` at most while nothing is taken."""

    __slots__ = ("_burst", "_clock", "_left", "_rate", "_since")

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._left = burst
        self._since = clock()

    def take(self, amount: float) -> bool:
        """Take `amount`; False when there was not enough."""
        self._left -= amount
        if self._left < 0:  # only then is it worth a look at the clock
            now = self._clock()
            self._left = min(self._burst, self._left + amount + (now - self._since) * self._rate) - amount
            self._since = now
        return self._left >= 0


class LinkBudget:
    """What is left for one guest.  Each method raises `LinkAbusedError` when that is nothing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._idle = Allowance(IDLE_FRAMES, IDLE_BURST, clock)
        self._noise = Allowance(NOISE, NOISE_BURST, clock)
        self._breaks = Allowance(BREAKS, BREAK_BURST, clock)
        self._owed = 0

    def idle(self, size: int) -> None:
        """Count a frame with `size` bytes of payload that moves nothing."""
        if not self._idle.take(1 + size // _FRAME_BYTES):
            raise LinkAbusedError(f"the guest sends more than {IDLE_FRAMES} frames a second that carry nothing")

    def closed(self, granted: int) -> None:
        """Note that a stream was closed here whose guest had leave to send so many bytes: they may be on the way."""
        self._owed = min(self._owed + granted, _MOST_OWED)

    def late(self, size: int) -> None:
        """Count a frame with `size` bytes of data of no stream that is open."""
        paid = min(size, self._owed)
        self._owed -= paid
        self.idle(size - paid)

    def noise(self, size: int) -> None:
        """Count bytes that belong to no session."""
        if not self._noise.take(size):
            raise LinkAbusedError(f"the guest has sent {NOISE_BURST >> 20} MiB that belong to no session")

    def broken(self, why: str) -> None:
        """Count a session that ended in nonsense."""
        if not self._breaks.take(1):
            raise LinkAbusedError(f"the guest breaks the protocol again and again: {why}")
