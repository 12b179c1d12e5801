"""Sheds that are suspended, and go on."""

from __future__ import annotations

from collections.abc import Callable

from shed.backends.base import Liveness
from shed.backends.interface import Backend
from shed.errors import ConflictError
from shed.progress import Progress
from shed.sheds.asleep import is_asleep
from shed.sheds.bringup import BringUp
from shed.sheds.catalog import load
from shed.sheds.changes import Hold
from shed.sheds.create import Resolve
from shed.sheds.egress import Egress
from shed.sheds.events import Events
from shed.sheds.lifecycle import in_doubt
from shed.sheds.metadata import Record
from shed.sheds.suspending import suspend
from shed.threads import in_thread

_TOLD = {"command": "", "idle": "it was idle", "ttl": "its time was up"}


class Suspensions:
    """Suspends and resumes sheds that `hold` holds."""

    def __init__(  # noqa: PLR0917  all that it takes
        self, hold: Hold, backend: Backend, resolve: Resolve, egress: Egress, events: Events, bring_up: BringUp
    ) -> None:
        self._hold = hold
        self._backend = backend
        self._resolve = resolve
        self._egress = egress
        self._events = events
        self._bring_up = bring_up

    async def suspend(
        self, name: str, progress: Progress, *, by: str = "command", still: Callable[[], bool] = lambda: True
    ) -> Record:
        """Suspend a shed that runs; return its record.  Its published ports stay: a connection to one wakes it.

        `by` is one of `asleep.BY`.  Raises `NotFoundError`, `ConflictError` (SHED_SUSPENDED, SHED_ALREADY_STOPPED;
        SHED_BUSY when it is not `still` to be suspended), and what `suspending.suspend` does.
        """
        async with self._hold(name, "suspend") as (folders, link):
            record = load(folders)
            if not still():
                raise ConflictError(f"shed {name!r} is used again", code="SHED_BUSY", hint="")
            match self._backend.liveness(folders.instance):
                case Liveness.UNKNOWN:
                    raise in_doubt(name, self._backend.pid(folders.instance))
                case Liveness.NOT_OURS if is_asleep(folders):
                    raise ConflictError(
                        f"shed {name!r} is suspended already", code="SHED_SUSPENDED", hint=f"`shed resume {name}`"
                    )
                case Liveness.NOT_OURS:
                    raise ConflictError(
                        f"shed {name!r} is not running", code="SHED_ALREADY_STOPPED", hint=f"`shed start {name}`"
                    )
            image = await in_thread(self._resolve, record.lower_digest)
            await suspend(record, image, folders, self._backend, link, by=by, progress=progress)
            await self._egress.close(name)
        self._events.tell("shed.suspended", name, _TOLD[by])
        return record

    async def resume(self, name: str, progress: Progress, *, force: bool) -> tuple[Record, str]:
        """Have a suspended shed go on; return its record, and how its VM came up.

        Raises `ConflictError` (SHED_NOT_SUSPENDED), and what a start raises.
        """
        async with self._hold(name, "start") as (folders, link):
            record = load(folders)
            if not is_asleep(folders):
                runs = self._backend.liveness(folders.instance) is not Liveness.NOT_OURS
                raise ConflictError(
                    f"shed {name!r} is not suspended",
                    code="SHED_NOT_SUSPENDED",
                    hint="it runs" if runs else f"`shed start {name}`",
                )
            return await self._bring_up.boot(record, folders, link, progress, force=force)
