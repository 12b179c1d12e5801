"""Forks: sheds that go on from what a running one is now, beside it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from shed.api.making import CreateShed
from shed.config.paths import Paths
from shed.errors import ShedError
from shed.names import check_shed_name
from shed.progress import Progress
from shed.sheds.catalog import View
from shed.sheds.create import exists
from shed.sheds.snapshots import Snapshots
from shed.sheds.snapshotstore import Origin

Create = Callable[[CreateShed, Progress, Origin], Awaitable[View]]


@dataclass(frozen=True, slots=True)
class Forked:
    """What became of one fork: the shed, or why there is none."""

    name: str
    shed: View | None
    error: ShedError | None


class Forks:
    """Forks the sheds that `snapshots` can keep; `create` makes each of them."""

    def __init__(self, paths: Paths, snapshots: Snapshots, create: Create) -> None:
        self._paths = paths
        self._snapshots = snapshots
        self._create = create

    async def fork(self, shed: str, names: list[str], progress: Progress) -> list[Forked]:
        """Make sheds called `names` that go on from what `shed`, which runs on, is at one moment.

        Each is made whole or not at all, whatever becomes of the others.  Raises `ConflictError`
        (SHED_ALREADY_EXISTS) before anything is touched, and what keeping the moment does.
        """
        for name in names:
            if (self._paths.instances / check_shed_name(name)).exists():
                raise exists(name)
        found = []
        async with self._snapshots.moment(shed, progress) as origin:
            for name in names:
                progress.phase("fork", f"making {name}")
                try:
                    view = await self._create(CreateShed(name=name), Progress(abandoned=progress.abandoned), origin)
                    found.append(Forked(name, view, None))
                except ShedError as error:
                    found.append(Forked(name, None, error))
        return found


def names_of(name: str, count: int) -> list[str]:
    """Return what so many forks are called: the first alone has the name itself."""
    return [name] if count == 1 else [f"{name}-{number}" for number in range(1, count + 1)]
