"""What a shed gets when it is up: its repository, its user's dotfiles, and what its project has run.

What goes wrong is told; the shed stays, and can be used.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial

from shed.api.making import CreateShed
from shed.config.server import Settings
from shed.errors import BackendError, NotFoundError, ShedError, UnavailableError
from shed.progress import Progress
from shed.sheds import dotfiles, hooks
from shed.sheds.catalog import Catalog
from shed.sheds.clone import NOT_EMPTY, clone
from shed.sheds.create import Plan, plan
from shed.sheds.events import Events
from shed.sheds.guests import Guests
from shed.sheds.hooks import Provisioning, run_hook
from shed.sheds.metadata import Record
from shed.sheds.repository import Repository
from shed.sheds.terms import Terms
from shed.sheds.workspace import TARGET
from shed.threads import in_long_thread, in_thread

log = logging.getLogger(__name__)
LIMIT = 3600.0
"""Seconds for a hook of a shed that is made, or started."""
_SHUTDOWN = 30.0
"""Most seconds for the hook of a shed that is stopped."""
Keep = Callable[[str, str, Mapping[str, str]], Awaitable[None]]
"""Keeps whether a shed has hooks, and the variables of its project; `Changes.set_provision`."""


class Setup:
    """Sets up the sheds of `catalog`, by commands in `guests`."""

    def __init__(  # noqa: PLR0917  all that a new shed is told
        self,
        guests: Guests,
        catalog: Catalog,
        keep: Keep,
        terms: Terms,
        settings: Settings,
        events: Events,
    ) -> None:
        self._guests = guests
        self._catalog = catalog
        self._keep = keep
        self._terms = terms
        self._settings = settings
        self._events = events
        self._starting: dict[str, asyncio.Task[list[str]]] = {}
        """What runs after a start, by shed."""

    def opens_more(self, request: CreateShed) -> bool:
        """Return whether a shed would reach a host for a repository that its profiles say nothing about.

        Raises `UsageError`.  Blocks for a moment.
        """
        if request.repo is None and request.dotfiles is None:
            return False
        return self.opened(plan(request, self._settings)).record.repo_hosts is not None

    def opened(self, wanted: Plan) -> Plan:
        """Return `wanted` with the rules that its repositories need.  Blocks for a moment."""
        record = wanted.record
        if not record.is_ruled:
            return wanted
        profiles = self._terms.profiles_of(record)
        cloned = [each for each in (wanted.repository, wanted.dotfiles) if each is not None]
        places = dict.fromkeys(each.place for each in cloned if not each.is_opened_by(profiles))
        return replace(wanted, record=replace(record, repo_hosts=[*places] or None))

    async def run(self, record: Record, wanted: Plan, progress: Progress) -> list[str]:
        """Set up a shed that was just made; return a sentence for each thing that went wrong.

        Raises `NotFoundError` when it was deleted meanwhile.
        """
        failed: list[str] = []
        if wanted.repository is not None:
            cloning = partial(self._clone, record, wanted.repository, progress, depth=record.repo_depth)
            failed += await self._told("clone", cloning)
        if wanted.dotfiles is not None:
            failed += await self._told("dotfiles", partial(self._install, record, wanted.dotfiles, progress))
        if record.provision != "no" and (wanted.repository is not None or _has_file(record.local_dir)):
            names = ("install", "startup")
            failed += await self._told("hooks", lambda: self._provision(record.name, names, progress))
        if failed:
            with contextlib.suppress(BackendError, UnavailableError):
                (await self._guests.open_exec(record.name, autostart=False)).close()  # if it is being deleted, it waits
        return self._tell(record.name, "create", failed, progress)

    async def provision(
        self, name: str, progress: Progress, *, again: bool, limit: float | None, agent: str | None = None
    ) -> list[str]:
        """Run the hooks of a shed's project: ``install`` unless it has succeeded before, or `again`, and ``startup``.

        Where its repository was not cloned, it is now; `agent` is the socket of an SSH agent in the shed for that.

        Returns a sentence for each thing that went wrong.  Raises `NotFoundError` when there is nothing to do,
        `UnavailableError` (SHED_NOT_RUNNING).
        """
        record, cloned = self._catalog.record(name), False
        if record.repo is not None:
            repository = Repository.parse(record.repo, self._settings.git_base_url)
            failed = await self._clone(record, repository, progress, depth=record.repo_depth, agent=agent)
            cloned = failed != [NOT_EMPTY]
            if cloned and failed:
                return self._tell(name, "provision", failed, progress)
        names = ("install", "startup")
        failed = await self._provision(name, names, progress, again=again, limit=limit or LIMIT, needed=not cloned)
        return self._tell(name, "provision", failed, progress)

    def begin(self, record: Record) -> None:
        """Run what is to run after a start, if there is anything, without being waited for."""
        if record.provision == "yes":

            async def run() -> list[str]:
                try:
                    found = await self._told("hooks", lambda: self._provision(record.name, ("startup",), Progress()))
                    return self._tell(record.name, "start", found, None)
                finally:
                    if self._starting.get(record.name) is asyncio.current_task():  # and not that of a later start
                        del self._starting[record.name]

            self._starting[record.name] = asyncio.create_task(run(), name=f"startup of {record.name}")

    async def started(self, name: str, progress: Progress) -> list[str]:
        """Wait for what runs after a start; return a sentence for each thing that went wrong."""
        if (running := self._starting.get(name)) is None:
            return []
        progress.phase("startup", "hook startup")
        failed = await asyncio.shield(running)
        for sentence in failed:
            progress.warn(sentence)
        return failed

    async def stopping(self, name: str, progress: Progress) -> None:
        """Run what is to run before a stop of a shed that runs; the stop does not depend on it."""
        try:
            if not self._guests.is_up(name) or self._catalog.record(name).provision != "yes":
                return
        except ShedError:  # the stop says so
            return
        limit = min(self._settings.stop_timeout / 2, _SHUTDOWN)
        try:
            async with asyncio.timeout(limit):
                failed = await self._told("hooks", lambda: self._provision(name, ("shutdown",), progress, limit=limit))
        except TimeoutError:
            failed = [f"hook shutdown did not end within {limit:g} s"]
        except Exception:
            log.exception("shed %s: its hook before a stop", name)
            return
        self._tell(name, "stop", failed, progress)

    async def close(self) -> None:
        """Leave what runs to itself."""
        tasks = [*self._starting.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _install(self, record: Record, wanted: Repository, progress: Progress) -> list[str]:
        if failed := await self._clone(record, wanted, progress, depth=1, place=dotfiles.PLACE):
            return failed
        open_exec = partial(self._guests.open_exec, record.name, autostart=False)
        failure = await dotfiles.install(open_exec, limit=LIMIT, progress=progress)
        return [failure] if failure else []

    async def _clone(
        self,
        record: Record,
        repository: Repository,
        progress: Progress,
        *,
        depth: int,
        place: str = TARGET,
        agent: str | None = None,
    ) -> list[str]:
        return await clone(
            partial(self._guests.open_exec, record.name, autostart=False),
            repository,
            depth=depth,
            variable=""
            if repository.ssh
            else await in_thread(self._terms.secrets.variable_for, record, repository.host),
            known_hosts=self._settings.git_known_hosts,
            progress=progress,
            place=place,
            agent=agent,
        )

    async def _provision(
        self,
        name: str,
        names: tuple[str, ...],
        progress: Progress,
        *,
        again: bool = False,
        limit: float = LIMIT,
        needed: bool = False,
    ) -> list[str]:
        """Run the hooks `names`, until one fails; raises `NotFoundError` if they are `needed` and there is no file."""
        open_exec = partial(self._guests.open_exec, name, autostart=False)
        read = await hooks.read(open_exec)
        if read is None:
            if needed:
                raise NotFoundError(
                    f"the workspace of shed {name!r} has no {hooks.FILE}, and no devcontainer.json",
                    hint="see docs/reference/provisioning.md for what it says",
                )
            return []
        try:
            found = await in_long_thread(Provisioning.parse, *read)
        except ValueError as error:
            return [f"{read[0]}: {error}"]
        for note in found.notes if "install" in names else ():  # told once, and not at each start and stop
            progress.warn(f"{read[0]}: {note}")
        await self._keep(name, "yes" if found.hooks.keys() & {"startup", "shutdown"} else "", found.env)
        await hooks.prepare(open_exec)
        for kind in names:
            for each, hook in found.hooks.get(kind, {}).items():
                failed = await run_hook(
                    open_exec, each, hook, once=kind == "install", again=again, limit=limit, progress=progress
                )
                if failed:
                    return [failed]
        return []

    @staticmethod
    async def _told(what: str, work: Callable[[], Awaitable[list[str]]]) -> list[str]:
        """Do `work`, and make a sentence of an error."""
        try:
            return await work()
        except ShedError as error:
            return [f"{what}: {error.message}"]

    def _tell(self, name: str, doing: str, failed: list[str], progress: Progress | None) -> list[str]:
        for sentence in failed:
            if progress is not None:
                progress.warn(sentence)
            log.warning("shed %s: %s", name, sentence)
            self._events.tell("shed.failed", name, f"{doing}: {sentence}")
        return failed


def _has_file(folder: str | None) -> bool:
    """Say whether there is something to be read in the shared folder of a shed: the guest reads it."""
    return folder is not None and any(os.path.lexists(f"{folder}/{file}") for file in hooks.FILES)
