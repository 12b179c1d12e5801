"""What the sheds of one server may reach: their profiles, and the relay that holds them to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from shed.api.egress import Decision
from shed.backends.interface import Backend
from shed.config.paths import Paths
from shed.config.server import Settings
from shed.egress import decisions, wire
from shed.egress.netdfiles import DECISIONS
from shed.egress.network import uplink
from shed.egress.orders import Orders
from shed.egress.process import NetdProcess
from shed.egress.rules.hostports import HostPort
from shed.egress.rules.policy import Policy, check_names
from shed.errors import ShedError
from shed.progress import Progress
from shed.proxies import Proxy
from shed.sheds import nic
from shed.sheds.events import Events
from shed.sheds.metadata import Record, load
from shed.sheds.terms import Terms
from shed.threads import in_thread

log = logging.getLogger(__name__)
MOST_DECISIONS = 10_000
"""Entries of the log that one answer has."""
_AGAIN = 1.0
"""Seconds after which the relay is looked for again when it does not start."""
_NO_CONNECTION: dict[str, Any] = {"address": "", "port": 0, "allowed": False, "seconds": 0.0}
"""What an entry lacks that is about other entries."""
Running = Callable[[], Iterable[tuple[Record, Path]]]
"""Returns the sheds that run, and the folders of their VMs."""


class Egress:
    """The rules and the relay of the sheds below `paths`; `running` returns those that run on `backend`."""

    def __init__(
        self,
        paths: Paths,
        backend: Backend,
        settings: Settings,
        terms: Terms,
        running: Running,
        *,
        closed: Callable[[int], bool],
        events: Events,
    ) -> None:
        self._running = running
        self._terms = terms
        self._events = events
        self.profiles = terms.profiles
        self.default = settings.egress_default
        self._closed = closed
        self.proxy = _proxy(settings)
        """By which the sheds reach the outside."""
        self._backend = backend
        self._networks = backend.capabilities.networks
        self._netd = NetdProcess(paths.run, paths.logs)
        self._logs = paths.logs
        self._instances = paths.instances
        self._telling: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        """By shed; held from when its record is read until the relay obeys it: what was saved last holds in the end.
        The value of a secret may take its time, and other sheds do not wait for that.
        """

    def problem(self) -> str:
        """Return why no shed of this server has a network; empty when they have one.  Blocks for a moment."""
        if self._networks is None:
            return "the backend has no network of its own for each shed"
        error = self._networks.problem()
        return "" if error is None else f"{error}; {error.hint}" if error.hint else str(error)

    def check(self, names: Iterable[str]) -> None:
        """Raise `NotFoundError` for a profile that there is not."""
        check_names(names, self.profiles.all())

    async def begin(self, record: Record, state_dir: Path, progress: Progress) -> None:
        """Have the network of a VM that has just come up lead to the relay; if that fails, it leads nowhere."""
        if not record.is_ruled:
            progress.warn(f"shed {record.name!r}: {nic.WARNING}")
        for problem in await in_thread(self._terms.problems, record):
            progress.warn(problem)
        if self._networks is not None and (why := await in_thread(self.problem)):
            progress.warn(f"shed {record.name!r} has no network: {why}")
            return
        try:
            await self._lead(record, state_dir)
        except ShedError as error:
            progress.warn(f"shed {record.name!r} has no network: {error}")
            log.warning("shed %s has no network: %s", record.name, error)

    async def _lead(self, record: Record, state_dir: Path) -> None:
        if self._networks is not None and self._networks.problem() is None:
            await in_thread(self._open, record, state_dir)

    async def change(self, record: Record) -> int:
        """Have the rules of `record` hold for its running VM from now on; return how many connections that has cut."""
        if self._networks is None or self._networks.problem() is not None or not record.is_ruled:
            return 0
        await in_thread(self._terms.secrets.problems, record)  # what takes time does so before others have to wait
        return await in_thread(self._rule, record.name)

    def tell_rules(self, record: Record, cut: int) -> None:
        """Tell those who follow events that other rules hold for a shed, which has cut so many connections."""
        profiles = ", ".join(record.egress_profiles) or "no profile"
        self._events.tell("egress.rules", record.name, profiles + (f"; {cut} connections were cut" if cut else ""))

    async def close(self, name: str) -> None:
        """Relay nothing for a shed whose VM has gone.  What goes wrong is logged: the namespace has gone too."""
        if self._networks is None:
            return
        try:
            await in_thread(self._netd.close, name)
        except ShedError as error:
            log.warning("shed %s: %s", name, error)

    def rules(self, record: Record) -> list[str]:
        """Return the rules of a shed in the order in which they are asked."""
        if not record.is_ruled:
            return []
        rules = Policy.of(self._terms.profiles_of(record)).rules
        return [f"host-port {port}" for port in self._host_ports(record)] + [str(rule) for rule in rules]

    def connections(self, name: str) -> int:
        """Return how many connections a shed has now."""
        return self._netd.flows().get(name, 0)

    def flows(self) -> dict[str, int] | None:
        """Return how many connections each shed has now; None when that cannot be told.  Blocks for a moment."""
        if self._networks is None or self._networks.problem() is not None:
            return {}
        try:
            return self._netd.flows()
        except ShedError:
            return None

    def decisions(self, name: str, tail: int | None) -> list[dict[str, Any]]:
        """Return what the log has of a shed, the last `tail` entries of it."""
        return decisions.last(
            self._logs / DECISIONS, name, MOST_DECISIONS if tail is None else min(tail, MOST_DECISIONS)
        )

    async def keep(self) -> None:
        """Have a relay run as long as this does, and give it the sockets of all sheds when it was started anew."""
        if self._networks is None or await asyncio.to_thread(self._networks.problem) is not None:
            return
        while True:
            try:
                if await in_thread(self._netd.renew):
                    log.info("the network relay is of another version: it goes on with its connections, and no others")
                watches = await in_thread(self._netd.watch)
                following, *_ = tasks = [asyncio.create_task(self._follow(watch)) for watch in watches]
                try:
                    await self._reopen()
                    await following
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
                log.warning("the network relay has ended; it is started again")
            except ShedError as error:
                log.warning("%s", error)
            await asyncio.sleep(_AGAIN)

    async def _follow(self, watch: socket.socket) -> None:
        """Tell those who follow events what a relay's process says, until it ends."""
        reader, writer = await asyncio.open_unix_connection(sock=watch)
        with contextlib.closing(writer), contextlib.suppress(OSError, ValueError, wire.Closed):
            while True:
                self._tell(await wire.next_message(reader))

    def _tell(self, message: dict[str, Any]) -> None:
        """Tell those who follow events what the relay says."""
        if missed := message.get("missed"):
            self._events.tell("egress.left_out", count=int(missed))
            return
        began = "began" in message
        try:
            told = decision(message["began" if began else "entry"])
        except (KeyError, TypeError, msgspec.ValidationError):
            log.warning("the network relay says what nobody understands: %.200r", message)
            return
        kind = "egress.connected" if began else _kind(told)
        self._events.tell(kind, told.shed, count=told.left_out, decision=told)

    async def _reopen(self) -> None:
        known = await in_thread(self._netd.sheds)
        there = {
            record.name: (record, state_dir)
            for record, state_dir in await asyncio.to_thread(lambda: list(self._running()))
        }
        for name, (record, state_dir) in there.items():
            try:
                if name in known:
                    await self.change(record)  # an earlier server may have ended before it told it
                else:
                    await self._lead(record, state_dir)
            except ShedError as error:
                log.warning("shed %s: its rules do not hold, or it has no network: %s", name, error)
        for name in known.keys() - there.keys():
            await self.close(name)

    def _open(self, record: Record, state_dir: Path) -> None:
        assert self._networks is not None
        sockets = self._networks.sockets(state_dir)
        try:
            if not record.is_ruled:
                if (pid := self._backend.pid(state_dir)) is not None:
                    uplink.start(sockets[0], pid, state_dir)
                return
            with self._telling[record.name]:
                self._netd.open(record.name, self._orders(self._saved(record.name)), sockets)
        finally:
            for sock in sockets:
                sock.close()

    def _rule(self, name: str) -> int:
        with self._telling[name]:
            return self._netd.rule(name, self._orders(self._saved(name)))

    def _saved(self, name: str) -> Record:
        return load(self._instances / name)

    def _orders(self, record: Record) -> Orders:
        return replace(self._terms.orders(record), proxy=self.proxy, host_ports=self._host_ports(record))

    def _host_ports(self, record: Record) -> tuple[HostPort, ...]:
        return tuple(port for port in record.open_host_ports if not self._closed(port.port))


def decision(entry: dict[str, Any]) -> Decision:
    """Return an entry of the log as the API has it.  Raises `msgspec.ValidationError`."""
    return msgspec.convert({**_NO_CONNECTION, **entry}, Decision)


def _kind(decision: Decision) -> str:
    """Return the kind of event that an entry of the log is."""
    if decision.left_out:
        return "egress.left_out"
    if decision.cut:
        return "egress.cut"
    if decision.error:
        return "egress.failed"
    return "egress.allowed" if decision.allowed else "egress.refused"


def _proxy(settings: Settings) -> Proxy | None:
    try:
        found = settings.proxy(os.environ)
    except ValueError as error:
        log.warning("the proxy that the environment names is not used for sheds: %s; see egress.proxy", error)
        return None
    if found is not None:
        log.info("sheds reach the outside through the proxy %s", found)
    return found
