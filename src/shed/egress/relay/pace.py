"""How fast one shed may open connections.

Each leaves a port of the host in use for a minute after its end (TIME_WAIT), for the address that it went to.  The host
has 28,000 of them, and a shed that opened a thousand connections in a second would take all that lead to a mirror, or
to the host's proxy, from other sheds and from the host itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

BURST, PER_SECOND = 4096, 200
"""Connections that a shed may open at once, and how many more in each second."""


class Pace:
    """Lets `burst` things happen at once, and `per_second` more in each second; `clock` tells seconds."""

    def __init__(
        self, burst: int = BURST, per_second: float = PER_SECOND, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst, self._per_second, self._clock = burst, per_second, clock
        self._left = float(burst)
        self._seen = clock()

    def wait(self) -> float:
        """Count one more; return the seconds for which it has to wait."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._seen) * self._per_second) - 1
        self._seen = now
        return max(0.0, -self._left / self._per_second)

    async def turn(self) -> None:
        """Return when the next one may happen."""
        if (seconds := self.wait()) > 0:
            await asyncio.sleep(seconds)
