"""Prebuilds: sheds that are made ready ahead, by commands, and kept with their memory for others to go on from.

Each build is made in a shed of its own, which is deleted afterwards, and is kept as a snapshot; the earlier one goes
when no shed is being made from it.  What a killed server has left of a build ends by the time to live that it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace

import msgspec

from shed.api.making import CreateShed
from shed.api.prebuilds import MAX_EVERY, MAX_LIMIT, MIN_EVERY, CreatePrebuild
from shed.backends.base import Stream
from shed.config.paths import Paths
from shed.errors import ConflictError, DataError, NotFoundError, ShedError, UsageError
from shed.names import check_shed_name
from shed.progress import Progress
from shed.sheds import metadata
from shed.sheds.catalog import View
from shed.sheds.prebuildstore import Prebuild, PrebuildStore
from shed.sheds.provision import provision
from shed.sheds.snapshots import Snapshots
from shed.threads import in_thread

log = logging.getLogger(__name__)
_SPARE_TIME = 3600.0
"""Seconds that a shed in which a build is made has besides those of its commands."""
_AGAIN = 3600.0
"""Seconds from a build that has failed to the next one that nobody has asked for."""
_LOOK = 60.0
_NOT_FOR_ALL = (
    "local_dir",
    "local_dir_mode",
    "mounts",
    "ports",
    "ttl",
    "ttl_action",
    "restart",
    "prebuild",
    "cold",
    "disk_only",
    "force",
    "attached",
)
"""Options of a shed that those made ready together cannot share."""
_OF_THE_BUILD = frozenset({"name", "image", "timeout", "trust_kernel", "repo", "depth", "no_provision"})
_LONGEST = 50
"""Characters of a prebuild's name in those of its sheds and snapshots, which have others behind them."""
_MOST_REASON = 2000


@dataclass(frozen=True, slots=True)
class Sheds:
    """What prebuilds do with sheds."""

    create: Callable[[CreateShed, Progress], Awaitable[View]]
    delete: Callable[[str], Awaitable[None]]
    open_exec: Callable[[str], Awaitable[Stream]]


class Prebuilds:
    """The prebuilds below `paths`."""

    def __init__(self, paths: Paths, sheds: Sheds, snapshots: Snapshots) -> None:
        self._sheds = sheds
        self._snapshots = snapshots
        self._building: set[str] = set()
        self._used: Counter[str] = Counter()
        """How many sheds are being made from a snapshot."""
        self.store = PrebuildStore(paths)

    async def create(self, wanted: CreatePrebuild, progress: Progress) -> View:
        """Make a prebuild, build it, and return it.  On failure nothing is left but the log.

        Raises `UsageError`, `ConflictError` (PREBUILD_ALREADY_EXISTS, PREBUILD_BUSY), `DataError` (PREBUILD_FAILED),
        and what a create of a shed or of a snapshot raises.
        """
        name = check_shed_name(wanted.shed.name)
        _check(wanted)
        with self._busy(name):
            if self.store.exists(name):
                raise ConflictError(
                    f"there is a prebuild {name!r} already",
                    code="PREBUILD_ALREADY_EXISTS",
                    hint=f"build it anew: shed prebuild build {name}; or remove it: shed prebuild rm {name}",
                )
            recipe = Prebuild(wanted.shed, tuple(wanted.commands), wanted.limit, wanted.every)
            try:
                return await self.view(await self._build(recipe, progress))
            except BaseException:
                await in_thread(self._forget, name, keep_log=True)
                raise

    async def build(self, name: str, progress: Progress) -> View:
        """Build a prebuild anew and return it; until that is done the earlier one is used.

        Raises `NotFoundError`, `ConflictError` (PREBUILD_BUSY), and what `create` does.
        """
        with self._busy(name):
            recipe = await in_thread(self.store.load, name)
            try:
                return await self.view(await self._build(recipe, progress))
            except ShedError as error:
                recipe = await in_thread(self.store.load, name)
                failed = replace(recipe, tried_at=metadata.now(), failed=str(error)[:_MOST_REASON])
                await in_thread(self.store.save, failed)
                raise

    async def remove(self, name: str) -> None:
        """Remove a prebuild and its snapshot.  Raises `NotFoundError`, `ConflictError` (PREBUILD_BUSY)."""
        with self._busy(name):
            with contextlib.suppress(DataError):
                await in_thread(self.store.load, name)  # says so when there is none
            await in_thread(self._forget, name)

    def _forget(self, name: str, *, keep_log: bool = False) -> None:
        with contextlib.suppress(DataError, NotFoundError):
            found = self.store.load(name)
            self._swept(replace(found, snapshot="", unused=(*found.unused, *_one(found.snapshot))))
        self.store.remove(name, keep_log=keep_log)

    def merged(self, request: CreateShed) -> CreateShed:
        """Return `request` with what the prebuild that it names has, if it names one.

        What the request says itself wins.  Raises `NotFoundError` (PREBUILD_NOT_FOUND), `UsageError`.
        """
        if request.prebuild is None:
            return request
        if request.image is not None or request.from_snapshot is not None:
            raise UsageError(
                "a shed is made from an image, a snapshot or a prebuild, not from several", hint="leave out the others"
            )
        found = self.store.load(request.prebuild)
        if not found.snapshot:
            raise NotFoundError(
                f"the prebuild {found.name!r} has not been built",
                code="PREBUILD_NOT_FOUND",
                hint=f"shed prebuild build {found.name}",
            )
        common = {
            name: value
            for name in CreateShed.__struct_fields__
            if (value := getattr(found.shed, name)) and name not in _OF_THE_BUILD
        }
        given = {name: value for name, value in msgspec.structs.asdict(request).items() if value not in (None, False)}
        return CreateShed(**{**common, **given, "prebuild": None, "from_snapshot": found.snapshot})

    @contextlib.asynccontextmanager
    async def using(self, snapshot: str | None) -> AsyncIterator[None]:
        """Keep a snapshot while a shed is made from it, though a newer one is there meanwhile."""
        if snapshot is None:
            yield
            return
        self._used[snapshot] += 1
        try:
            yield
        finally:
            self._used[snapshot] -= 1
            if not self._used[snapshot]:
                del self._used[snapshot]
                await self._sweep()

    async def keep(self) -> None:
        """Build anew what is due, one after another, for as long as this runs."""
        await self._sweep()
        while True:
            await asyncio.sleep(_LOOK)
            found, _ = await in_thread(self.store.all)
            for prebuild in found:
                if prebuild.every is not None and _due(prebuild) and prebuild.name not in self._building:
                    log.info("prebuild %s: it is built anew", prebuild.name)
                    try:
                        await self.build(prebuild.name, Progress())
                    except ShedError as error:
                        log.warning("prebuild %s cannot be built anew: %s", prebuild.name, error)

    async def view(self, prebuild: Prebuild) -> View:
        """Return what there is to say of a prebuild."""
        return await in_thread(self._view, prebuild)

    def _view(self, prebuild: Prebuild) -> View:
        kept: View = {"memory_mb": 0, "disk_bytes": 0}
        there = False
        if prebuild.snapshot:
            with contextlib.suppress(ShedError):
                kept, there = self._snapshots.view(self._snapshots.store.load(prebuild.snapshot)), True
        building = prebuild.name in self._building and not there
        return {
            "name": prebuild.name,
            "status": "building" if building else "ready" if there else "missing",
            "image": prebuild.shed.image or "",
            "commands": list(prebuild.commands),
            "limit": prebuild.limit,
            "every": prebuild.every or 0.0,
            "snapshot": prebuild.snapshot,
            "built_at": prebuild.built_at,
            "memory_mb": kept["memory_mb"],
            "disk_bytes": kept["disk_bytes"],
            "failed": prebuild.failed,
        }

    async def _build(self, recipe: Prebuild, progress: Progress) -> Prebuild:
        """Build `recipe`, keep what has come of it in its record, and drop the earlier one."""
        place = f"{_place(recipe.name)}{os.urandom(3).hex()}"
        ttl = recipe.limit + _SPARE_TIME
        made = await self._sheds.create(msgspec.structs.replace(recipe.shed, name=place, ttl=ttl), progress)
        try:
            if failed := made.get("failed"):
                raise DataError("; ".join(failed), code="PREBUILD_FAILED")
            if recipe.commands:
                await provision(
                    lambda: self._sheds.open_exec(place),
                    recipe.commands,
                    self.store.log(recipe.name),
                    limit=recipe.limit,
                    progress=progress,
                )
            recipe = await in_thread(self._announce, recipe)
            name = recipe.unused[-1]
            await self._snapshots.create(place, name, f"prebuild {recipe.name}", progress)
        finally:
            progress.phase("clean up", "deleting the shed in which it was made")
            await asyncio.shield(asyncio.ensure_future(self._delete(place)))
        now = metadata.now()
        unused = (*recipe.unused[:-1], *_one(recipe.snapshot))
        built = replace(recipe, snapshot=name, unused=unused, built_at=now, tried_at=now, failed="")
        await in_thread(self.store.save, built)
        return await in_thread(self._swept, built)

    def _announce(self, recipe: Prebuild) -> Prebuild:
        """Return `recipe` with the name of the snapshot that is to be made, which is on disk before that is."""
        taken = set(self._snapshots.store.names())
        short, number = recipe.name[:_LONGEST], recipe.number + 1
        while f"{short}.{number}" in taken:
            number += 1
        recipe = replace(recipe, number=number, unused=(*recipe.unused, f"{short}.{number}"))
        self.store.save(recipe)
        return recipe

    async def _delete(self, place: str) -> None:
        try:
            await self._sheds.delete(place)
        except ShedError as error:  # its time to live ends it
            log.warning("shed %s, in which a prebuild was made, cannot be deleted: %s", place, error)

    async def _sweep(self) -> None:
        """Remove the snapshots that no prebuild needs any more, but those from which a shed is being made."""
        found, _ = await in_thread(self.store.all)
        for prebuild in found:
            if prebuild.unused and prebuild.name not in self._building:
                with self._busy(prebuild.name):
                    await in_thread(self._swept, prebuild)

    def _swept(self, prebuild: Prebuild) -> Prebuild:
        """Remove what `prebuild` does not need, and return what its record says then."""
        made_in = _place(prebuild.name)
        left = tuple(name for name in prebuild.unused if not self._removed(name, made_in))
        if left != prebuild.unused:
            prebuild = replace(prebuild, unused=left)
            self.store.save(prebuild)
        return prebuild

    def _removed(self, snapshot: str, made_in: str) -> bool:
        """Remove a snapshot, and return whether it is gone; one that a user has given the same name is let alone."""
        if self._used[snapshot]:
            return False
        try:
            if self._snapshots.store.load(snapshot).source_shed.startswith(made_in):
                self._snapshots.store.remove(snapshot)
        except NotFoundError:
            pass
        except ShedError as error:
            log.warning("snapshot %s, which no prebuild needs, cannot be removed: %s", snapshot, error)
            return False
        return True

    @contextlib.contextmanager
    def _busy(self, name: str) -> Iterator[None]:
        """Have a prebuild to oneself.  Raises `ConflictError` (PREBUILD_BUSY)."""
        if name in self._building:
            raise ConflictError(f"the prebuild {name!r} is being built", code="PREBUILD_BUSY", hint="wait for it")
        self._building.add(name)
        try:
            yield
        finally:
            self._building.remove(name)


def _check(wanted: CreatePrebuild) -> None:
    """Raise `UsageError` for what cannot be."""
    for option in _NOT_FOR_ALL:
        if getattr(wanted.shed, option):
            raise UsageError(f"a prebuild cannot have {option}", hint="give it to the sheds that are made from it")
    if not 0 < wanted.limit <= MAX_LIMIT:
        raise UsageError(f"a limit of {wanted.limit:g} s is not possible", hint="choose more than 0, and a day at most")
    if wanted.every is not None and not MIN_EVERY <= wanted.every <= MAX_EVERY:
        raise UsageError(f"it cannot be built every {wanted.every:g} s", hint="choose from a minute to a year")
    for number, command in enumerate(wanted.commands, 1):
        if not command.strip() or "\0" in command:
            raise UsageError(f"command {number} is empty, or has a NUL in it", hint="leave it out, or write it anew")


def _place(name: str) -> str:
    """Return what the names of the sheds begin with in which the prebuild `name` is built."""
    return f"{name[:_LONGEST]}-build-"


def _one(name: str) -> tuple[str, ...]:
    return (name,) if name else ()


def _due(prebuild: Prebuild) -> bool:
    """Return whether a prebuild is to be built anew now; one that has failed not before an hour is over."""
    assert prebuild.every is not None
    wait = min(prebuild.every, _AGAIN) if prebuild.failed else prebuild.every
    return not prebuild.tried_at or time.time() - metadata.seconds_of(prebuild.tried_at) >= wait
