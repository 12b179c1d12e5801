"""Changes of what holds for sheds that there are: their profiles, secrets and ports.  Running sheds obey at once.

First the relay is told, then the guest: what it is told only helps programs there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from shed.api.ports import ChangePorts
from shed.backends.base import Liveness
from shed.backends.interface import Backend
from shed.errors import ShedError
from shed.sheds import metadata, nic
from shed.sheds.asleep import is_asleep
from shed.sheds.boot import equip_again
from shed.sheds.catalog import Catalog, load
from shed.sheds.egress import Egress
from shed.sheds.folders import Folders
from shed.sheds.link import Link
from shed.sheds.metadata import Record
from shed.sheds.ports import Ports
from shed.sheds.terms import Terms
from shed.threads import in_thread

log = logging.getLogger(__name__)
Hold = Callable[[str, str], AbstractAsyncContextManager[tuple[Folders, Link]]]
"""Holds a shed, by its name, for what is to be done."""
_LOOK_AGAIN = 60.0
"""Seconds between looks at files and commands that values of secrets come from."""


class Changes:
    """Changes `terms` of sheds that `hold` holds."""

    def __init__(  # noqa: PLR0917  all that can change
        self, hold: Hold, backend: Backend, catalog: Catalog, terms: Terms, egress: Egress, ports: Ports
    ) -> None:
        self._hold = hold
        self._backend = backend
        self._catalog = catalog
        self._terms = terms
        self._egress = egress
        self._ports = ports

    async def set_ports(self, name: str, change: ChangePorts) -> int:
        """Publish ports of a shed, or no more, and open or close ports of the host to it.

        Returns how many of its connections to the host that has cut.  Raises `UsageError`, `NotFoundError`,
        `ConflictError`; then nothing has changed.
        """
        async with self._hold(name, "ports") as (folders, _):
            running = self._backend.liveness(folders.instance) is Liveness.OURS
            served = running or is_asleep(folders)
            record = await self._ports.change(load(folders), folders.instance, change, running=served)
            return await self._egress.change(record) if running else 0

    async def set_profiles(self, name: str, profiles: Sequence[str]) -> int:
        """Have the shed be ruled by these profiles from now on; return how many connections that has cut.

        Raises `NotFoundError` for the shed, and for a profile that there is not.
        """
        await in_thread(self._egress.check, profiles)
        async with self._hold(name, "egress") as (folders, link):
            before = load(folders)
            nic.check_ruled(before)
            record = replace(before, egress=list(dict.fromkeys(profiles)), repo_hosts=None)
            await in_thread(metadata.save, folders.instance, record)
            running = self._backend.liveness(folders.instance) is Liveness.OURS
            cut = await self._egress.change(record) if running else 0
            self._egress.tell_rules(record, cut)
            if running and await in_thread(self._terms.outfit, before) != await in_thread(self._terms.outfit, record):
                await self._equip(record, link)
            return cut

    async def set_provision(self, name: str, provision: str, env: Mapping[str, str]) -> None:
        """Keep whether a shed's project has hooks, and the variables that it wants; commands have them from now on."""
        async with self._hold(name, "provision") as (folders, link):
            before = load(folders)
            record = replace(before, provision=provision, project_env=dict(env) or None)
            if record == before:
                return
            await in_thread(metadata.save, folders.instance, record)
            if record.project_env != before.project_env and self._backend.liveness(folders.instance) is Liveness.OURS:
                await self._equip(record, link)

    async def change_secrets(self, name: str, give: Sequence[str], take: Sequence[str]) -> tuple[list[str], bool]:
        """Give the shed secrets, and take others from it; return those that it has then.

        Return also whether commands that start now know of it: not with the agent of an earlier version.  Raises
        `NotFoundError`, and `ConflictError` for two that would have the same name in the shed.
        """
        async with self._hold(name, "secrets") as (folders, link):
            before = load(folders)
            wanted = [each for each in dict.fromkeys([*(before.secrets or ()), *give]) if each not in take]
            if give:
                nic.check_ruled(before)
                await in_thread(self._terms.secrets.check, wanted)
            record = replace(before, secrets=wanted or None)
            await in_thread(metadata.save, folders.instance, record)
            if self._backend.liveness(folders.instance) is not Liveness.OURS:
                return wanted, True
            await self._egress.change(record)
            return wanted, await self._equip(record, link)

    async def profile_changed(self, profile: str) -> None:
        """Have the sheds that have a profile be ruled by what it says now.

        Raises `UnavailableError` when that failed for one of them; the others are ruled all the same.
        """
        await self._apply(lambda record: profile in record.egress_profiles)

    async def secret_changed(self, secret: str) -> None:
        """Have what a secret is now be used for the sheds that have it; raises as `profile_changed` does."""
        await self._apply(lambda record: secret in (record.secrets or ()))

    async def keep_secrets(self) -> None:
        """Tell the relay, for as long as this runs, of values that have changed where they come from."""
        while True:
            await asyncio.sleep(_LOOK_AGAIN)
            for record, _ in await in_thread(lambda: list(self._catalog.running())):
                try:
                    if await in_thread(self._terms.secrets.have_changed, record):
                        await self._egress.change(record)
                except ShedError as error:
                    log.warning("shed %s: %s", record.name, error)

    async def _apply(self, concerned: Callable[[Record], bool]) -> None:
        records = [record for record, _ in await in_thread(lambda: list(self._catalog.running())) if concerned(record)]
        failed: ShedError | None = None
        for record in records:
            try:
                self._egress.tell_rules(record, await self._egress.change(record))
            except ShedError as error:
                failed = failed or error
        await asyncio.gather(*(self.equip(record.name) for record in records))
        if failed is not None:
            raise failed

    async def equip(self, name: str) -> bool:
        """Tell the guest of a shed, if it runs, what holds; return whether commands that start now know of it."""
        try:
            async with self._hold(name, "egress") as (folders, link):
                running = self._backend.liveness(folders.instance) is Liveness.OURS
                return not running or await self._equip(load(folders), link)
        except ShedError as error:
            log.warning("shed %s: %s", name, error)
            return False

    async def _equip(self, record: Record, link: Link) -> bool:
        """Return whether the commands that start in a shed from now on know what holds."""
        outfit = await in_thread(self._terms.outfit, record)
        try:
            return await equip_again(await link.get(), outfit)
        except ShedError as error:
            log.warning("shed %s: the guest cannot be told what has changed: %s", record.name, error)
            return False
