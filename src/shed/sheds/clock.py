"""The guests' wall clocks: set when a guest is ready, and kept right.

A guest's clock runs on its own from there: it stands still while the host sleeps, does not know when the host's is set, and drifts.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from shed.backends.base import Connection
from shed.errors import ShedError
from shed.sheds.agent import control

log = logging.getLogger(__name__)
_ANSWER_SECONDS = 5.0
_PROMPT, _ATTEMPTS = 0.05, 3
"""Seconds in which the guest must have answered for its clock to count as right; a busy one is asked again."""
_JUMP = 0.1
"""Seconds by which the host's wall clock has moved against its monotonic one: it slept, or was set."""
_LOOK, _EVERY = 5.0, 600.0
"""Seconds between two looks at the host's clocks, and after which the guests' are set anyhow."""


async def set_clock(connection: Connection) -> None:
    """Set a guest's clock by the host's.  Raises `BackendError`."""
    for _ in range(_ATTEMPTS):
        asked = time.monotonic()
        await control(connection, "clock", wait=_ANSWER_SECONDS, clock=time.time())
        if time.monotonic() - asked < _PROMPT:
            return


async def keep_clocks(guests: Callable[[], Iterable[Connection]]) -> None:
    """Set the clocks of all `guests` there are after the host slept or its clock was set, and now and then; never returns."""
    ahead, due = time.time() - time.monotonic(), time.monotonic() + _EVERY
    while True:
        await asyncio.sleep(_LOOK)
        now = time.time() - time.monotonic()
        if abs(now - ahead) > _JUMP:
            log.info("the host's clock has moved by %.1f s", now - ahead)
        elif time.monotonic() < due:
            continue
        ahead, due = now, time.monotonic() + _EVERY
        for guest in list(guests()):
            try:
                await set_clock(guest)
            except ShedError as error:
                log.warning("a guest's clock may be wrong: %s", error)
