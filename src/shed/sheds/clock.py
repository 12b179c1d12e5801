"""The guests' wall clocks: right when a guest is ready, and kept so.

A guest gets the time with *configure*, and its clock runs on its own from there: it stands still while the host sleeps,
does not know when the host's is set, and drifts.  How wrong it is shows in an answer that says what time it is there:
whatever the message took, that was between sending and receiving.  What may be right is left alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from shed.backends.base import Connection
from shed.errors import BackendError, ShedError
from shed.sheds.agent import control
from shed.untrusted import told

log = logging.getLogger(__name__)
_ANSWER_SECONDS = 5.0
_PROMPT, _QUESTIONS = 0.02, 3
"""Seconds in which an answer says enough, and how often a guest is asked for one."""
_JUMP = 0.1
"""Seconds by which the host's wall clock has moved against its monotonic one: it slept, or was set."""
_LATEST = 1e11
"""Seconds since 1970 that a guest's clock can show: year 5138."""
_LOOK, _EVERY = 5.0, 600.0
"""Seconds between two looks at the host's clocks, and after which the guests' are looked at anyhow."""


async def set_clock(connection: Connection) -> float:
    """Correct a guest's clock where it is surely wrong, and return by how many seconds.  Raises `BackendError`."""
    least, most = -float("inf"), float("inf")
    for _ in range(_QUESTIONS):
        sent = time.time()
        there = await _ask(connection)
        least, most = max(least, sent - there), min(most, time.time() - there)
        if most - least < _PROMPT:
            break
    if least <= 0 <= most:
        return 0.0
    correction = (least + most) / 2
    await _ask(connection, adjust=correction)
    return correction


async def set_clock_quietly(name: str, connection: Connection) -> bool:
    """Correct the clock of the shed `name`, as far as it answers in time; return whether it did."""
    try:
        correction = await set_clock(connection)
    except ShedError as error:
        log.warning("shed %s: its clock may be wrong: %s", name, error)
        return False
    if abs(correction) >= 1:
        log.info("shed %s: its clock was wrong by %.1f s", name, -correction)
    return True


async def keep_clocks(guests: Callable[[], Mapping[str, Connection]]) -> None:
    """Correct the clocks of the `guests` there are after the host slept or its clock was set, and now and then.

    Never returns.

    Those that do not answer are asked again as long as they are there.
    """
    ahead, due, wrong = _ahead(), time.monotonic() + _EVERY, set[str]()
    while True:
        await asyncio.sleep(_LOOK)
        present = guests()
        if abs(_ahead() - ahead) > _JUMP or time.monotonic() >= due:
            ahead, due, wrong = _ahead(), time.monotonic() + _EVERY, set(present)
        asked = sorted(wrong & present.keys())
        answered = await asyncio.gather(*(set_clock_quietly(name, present[name]) for name in asked))
        wrong = {name for name, done in zip(asked, answered, strict=True) if not done}


def _ahead() -> float:
    """Return how far the host's wall clock is ahead of its monotonic clock.

    That is never set, and stands still while the host sleeps.
    """
    return time.time() - time.monotonic()


async def _ask(connection: Connection, **fields: float) -> float:
    """Return what time it is in the guest, after doing as it is asked."""
    answer = await control(connection, "clock", wait=_ANSWER_SECONDS, **fields)
    now = answer.get("now")
    if now is None:  # an older agent does not say, and keeps its clock
        return time.time()
    if isinstance(now, bool) or not isinstance(now, int | float) or abs(now) > _LATEST:
        raise BackendError(f"the agent says that it is {told(now)} there", code="AGENT_PROTOCOL")
    return float(now)
