"""What a new shed gets when it is up: its repository.  What goes wrong is told; the shed stays, and can be used."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from shed.api.sheds import CreateShed
from shed.backends.base import Stream
from shed.config.server import Settings
from shed.errors import ShedError
from shed.progress import Progress
from shed.sheds.clone import clone
from shed.sheds.create import Plan, plan
from shed.sheds.events import Events
from shed.sheds.metadata import Record
from shed.sheds.terms import Terms
from shed.threads import in_thread

log = logging.getLogger(__name__)


class Setup:
    """Sets up sheds, in which `open_exec` opens streams for commands."""

    def __init__(
        self, open_exec: Callable[[str], Awaitable[Stream]], terms: Terms, settings: Settings, events: Events
    ) -> None:
        self._open_exec = open_exec
        self._terms = terms
        self._settings = settings
        self._events = events

    def opens_more(self, request: CreateShed) -> bool:
        """Return whether a shed would reach a host for its repository that its profiles say nothing about.

        Raises `UsageError`.  Blocks for a moment.
        """
        wanted = plan(request, self._settings) if request.repo is not None else None
        return wanted is not None and self.opened(wanted).record.repo_host is not None

    def opened(self, wanted: Plan) -> Plan:
        """Return `wanted` with the rule that its repository needs.  Blocks for a moment."""
        record, repository = wanted.record, wanted.repository
        if repository is None or not record.is_ruled or repository.is_opened_by(self._terms.profiles_of(record)):
            return wanted
        return replace(wanted, record=replace(record, repo_host=repository.place))

    async def run(self, record: Record, wanted: Plan, progress: Progress) -> list[str]:
        """Set up a shed that was just made; return a sentence for each thing that went wrong."""
        failed = await self._clone(record, wanted, progress)
        for sentence in failed:
            progress.warn(sentence)
            log.warning("shed %s: %s", record.name, sentence)
            self._events.tell("shed.failed", record.name, f"create: {sentence}")
        return failed

    async def _clone(self, record: Record, wanted: Plan, progress: Progress) -> list[str]:
        repository = wanted.repository
        if repository is None:
            return []
        try:
            return await clone(
                lambda: self._open_exec(record.name),
                repository,
                depth=wanted.depth,
                variable=""
                if repository.ssh
                else await in_thread(self._terms.secrets.variable_for, record, repository.host),
                known_hosts=self._settings.git_known_hosts,
                progress=progress,
            )
        except ShedError as error:
            return [f"the repository was not cloned: {error.message}"]
