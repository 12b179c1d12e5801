"""Sheds that are kept awake although nobody uses them, for some time and a reason."""

from __future__ import annotations

import os
import time

from shed.errors import ConflictError, NotFoundError, UsageError
from shed.names import MAX_AWAKE, MAX_REASON
from shed.sheds import leases, metadata
from shed.sheds.changes import Hold
from shed.sheds.guests import Guests
from shed.sheds.leases import MOST_LEASES, Lease
from shed.threads import in_thread


class Awake:
    """Keeps sheds awake that `hold` holds and `guests` leads to."""

    def __init__(self, hold: Hold, guests: Guests) -> None:
        self._hold = hold
        self._guests = guests

    async def keep(self, name: str, seconds: float, reason: str) -> Lease:
        """Keep a shed awake for so many seconds, and return by what; a suspended one goes on first.

        Raises `NotFoundError`, `UnavailableError` (SHED_NOT_RUNNING), `ConflictError` (TOO_MANY_LEASES), `UsageError`,
        and what a start raises.
        """
        if not 1 <= seconds <= MAX_AWAKE:
            raise UsageError(
                f"a shed is not kept awake for {seconds:g} s",
                hint=f"choose from 1 s to {MAX_AWAKE // 3600} hours, and ask again then",
            )
        with self._guests.using(name):
            await self._guests.wake(name)
            async with self._hold(name, "awake") as (folders, _):
                held = await in_thread(leases.load, folders.instance)
                if len(held) >= MOST_LEASES:
                    raise ConflictError(
                        f"shed {name!r} is kept awake by {len(held)} leases already, the next of which ends at "
                        f"{held[0].until}",
                        code="TOO_MANY_LEASES",
                        hint=f"release them: shed keep-awake {name} --release",
                    )
                lease = Lease(os.urandom(4).hex(), metadata.at(time.time() + seconds), reason[:MAX_REASON])
                await in_thread(leases.save, folders.instance, [*held, lease])
        return lease

    async def release(self, name: str, lease: str | None) -> list[Lease]:
        """Have a lease of a shed, or all of them, keep it awake no more; return those that did.

        Its idle time begins then.  Raises `NotFoundError`, for a lease that there is not, too (LEASE_NOT_FOUND).
        """
        with self._guests.using(name):
            async with self._hold(name, "awake") as (folders, _):
                held = await in_thread(leases.load, folders.instance)
                gone = [each for each in held if lease in {None, each.id}]
                if lease is not None and not gone:
                    raise NotFoundError(
                        f"shed {name!r} has no lease {lease}",
                        code="LEASE_NOT_FOUND",
                        hint=f"it may have ended; see: shed inspect {name}",
                    )
                await in_thread(leases.save, folders.instance, [each for each in held if each not in gone])
        return gone
