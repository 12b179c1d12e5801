"""The wall clocks of the guests.

A guest gets the host's time as it starts, and goes on by itself.  That the host slept for a night, or that its clock was set, it does not
notice; then certificates are not valid yet in it, and files come from the future.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from shed.errors import BackendError
from shed.sheds.agent import Link, control

log = logging.getLogger(__name__)
_LOOK_EVERY = 5.0
_JUMP = 1.0
"""Seconds by which the clock must have jumped; programs put up with less, as they must with NTP."""
_WAIT = 3.0


async def keep_clocks(links: Callable[[], Mapping[str, Link]]) -> None:
    """Tell the time to the agents of the `links` that are live whenever the host's wall clock has jumped; until cancelled."""
    known = _ahead()
    while True:
        await asyncio.sleep(_LOOK_EVERY)
        ahead = _ahead()
        if abs(ahead - known) >= _JUMP:
            log.info("the clock of this machine has jumped by %+.1f s: setting those of running sheds", ahead - known)
            known = ahead
            await asyncio.gather(*(_tell(name, link) for name, link in links().items() if link.live))


def _ahead() -> float:
    """Return how far the wall clock is ahead of the monotonic one, which is never set and stands still while the machine sleeps."""
    return time.time() - time.monotonic()


async def _tell(name: str, link: Link) -> None:
    try:
        await control(await link.get(), "clock", wait=_WAIT, clock=time.time())
    except BackendError as error:
        log.warning("shed %s: cannot set its clock: %s", name, error)
