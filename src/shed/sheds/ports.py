"""The published ports of sheds: sockets of this host that lead to ports of a shed's loopback, by its agent.

A port is taken before its shed is started, so that one that is in use is found first, and given back when the shed
stops.  It lives in the server: while no server runs, nobody answers there.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import resource
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from shed.accept import Acceptor
from shed.api.ports import ChangePorts, PublishedPort
from shed.config.server import Settings
from shed.egress.rules.hostports import HostPort
from shed.errors import ConflictError, ShedError, UsageError
from shed.sheds.bridge import bridge
from shed.sheds.guests import Guests
from shed.sheds.listeners import listen, listen_anywhere, who_listens
from shed.sheds.metadata import Record, save
from shed.sheds.nic import check_ruled
from shed.sheds.portcheck import Host, check, without
from shed.sheds.portspec import Published
from shed.threads import in_thread

log = logging.getLogger(__name__)
MOST_CONNECTIONS = 1024
"""Through all published ports of one shed at once; others are reset."""
_AGAIN = 5.0
"""Seconds after which a port that was in use is tried again, for a shed that runs already."""
_RESET = struct.pack("ii", 1, 0)
"""struct linger: close at once, with a reset."""
Records = Callable[[], Iterable[Record]]
"""Returns the records of all sheds.  Blocks for a moment."""


@dataclass(slots=True)
class _Held:
    """One published port: its sockets, and the connections through it."""

    sockets: list[socket.socket]
    acceptors: list[Acceptor] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def close(self) -> None:
        for acceptor in self.acceptors:
            acceptor.close()
        for sock in self.sockets:
            sock.close()
        tasks = self.tasks - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Ports:
    """The published ports of all sheds of one server; `records` returns what is known of these."""

    def __init__(self, guests: Guests, settings: Settings, records: Records) -> None:
        self._guests = guests
        self._addresses = {None, "127.0.0.1", "::1", *settings.publish_addresses}
        self._records = records
        self.own_ports = settings.own_ports
        """The server's own, and what for; it adds what it takes besides."""
        self._held: dict[str, dict[Published, _Held]] = {}
        """By shed."""
        self._problems: dict[tuple[str, Published], str] = {}
        """Of sheds that run: ports that are tried again."""
        self._counts: Counter[str] = Counter()
        """How many connections each shed has through its ports."""
        self._most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
        """Connections of all sheds: the other descriptors are for the server."""

    def is_closed(self, port: int) -> bool:
        """Say whether `port` of this host is the server's or leads to a shed: no shed reaches it.  For any thread."""
        return port in self.own_ports or any(
            port == one.port for held in list(self._held.values()) for one in list(held)
        )

    def check(self, name: str, published: Sequence[Published], host_ports: Sequence[HostPort]) -> None:
        """See `shed.sheds.portcheck`.  Blocks for a moment."""
        if published or host_ports:
            check(name, published, host_ports, Host(self.own_ports, self._addresses, self._records()))

    @contextlib.asynccontextmanager
    async def held(self, name: str, published: Sequence[Published]) -> AsyncIterator[list[Published]]:
        """Take the ports for a shed that is about to run, and serve them once the block has ended well.

        Yields them with the numbers of those that were to be free ones.  Those that are served already, because the
        shed was suspended, go on to be.  Raises `ConflictError` (PORT_IN_USE), `UsageError`.
        """
        if published and self._held.get(name, {}).keys() == set(published):
            yield list(published)
            return
        await self.close(name)
        taken = await self._take(name, published)
        try:
            yield taken
        except BaseException:
            await self.close(name)
            raise
        self._serve(name, taken)

    async def add(self, name: str, published: Sequence[Published]) -> list[Published]:
        """Publish ports of a shed that runs, and return them with their numbers.  Raises as `held` does."""
        taken = await self._take(name, published)
        self._serve(name, taken)
        return taken

    async def remove(self, name: str, published: Iterable[Published]) -> None:
        """Publish these ports of a shed no more, and cut the connections through them."""
        for one in published:
            self._problems.pop((name, one), None)
            if (held := self._held.get(name, {}).pop(one, None)) is not None:
                await held.close()

    async def change(self, record: Record, instance: Path, change: ChangePorts, *, running: bool) -> Record:
        """Change the ports of a shed whose folder is `instance`, and return its record as it is then.

        Raises `UsageError`, `NotFoundError`, `ConflictError`; then nothing has changed.
        """
        name = record.name
        kept = without(record.published, change.unpublish, f"published for shed {name!r}")
        host_ports = [
            *without(record.open_host_ports, change.no_host_ports, f"open to shed {name!r}"),
            *map(HostPort.parse, change.host_ports),
        ]
        if change.host_ports:
            check_ruled(record)
        added = [Published.parse(text) for text in change.publish]
        await in_thread(self.check, name, [*kept, *added], host_ports)
        added = await self.add(name, added)
        changed = record.with_ports([*kept, *added], host_ports)
        try:
            await in_thread(save, instance, changed)
        except BaseException:
            await self.remove(name, added)
            raise
        await self.remove(name, set(record.published) - set(kept) if running else changed.published)
        return changed

    async def adopt(self, name: str, published: Sequence[Published]) -> None:
        """Publish the ports of a shed that runs already; one that is in use now is tried again until it is free."""
        for one in published:
            if one in self._held.get(name, {}):
                continue
            try:
                await self.add(name, [one])
                self._problems.pop((name, one), None)
            except ShedError as error:
                if self._problems.get((name, one)) != error.message:
                    log.warning("shed %s: %s", name, error)
                self._problems[name, one] = error.message

    async def keep(self) -> None:
        """Try again, as long as this runs, the ports that were in use when their shed was adopted."""
        while True:
            await asyncio.sleep(_AGAIN)
            for name, one in list(self._problems):
                await self.adopt(name, [one])

    async def close(self, name: str) -> None:
        """Publish nothing of a shed any more."""
        for key in [key for key in self._problems if key[0] == name]:
            del self._problems[key]
        await self.remove(name, list(self._held.get(name, ())))
        self._held.pop(name, None)

    async def close_all(self) -> None:
        """Publish nothing at all any more."""
        for name in list(self._held):
            await self.close(name)

    def shown(self, record: Record) -> list[PublishedPort]:
        """Return the published ports of a shed as the API has them."""
        open_now = {one for one, held in self._held.get(record.name, {}).items() if held.acceptors}
        return [
            PublishedPort(
                address=one.address or "localhost",
                port=one.port,
                shed_port=one.shed_port,
                open=one in open_now,
                problem=self._problems.get((record.name, one), ""),
            )
            for one in record.published
        ]

    async def _take(self, name: str, published: Sequence[Published]) -> list[Published]:
        """Listen at these ports, and return them with their numbers.

        They are looked at again once they are ours: a shed that was given one of them meanwhile was not told so then.
        """
        if not published:
            return []
        await in_thread(self.check, name, published, ())
        avoid = await in_thread(self._named)
        taken: list[Published] = []
        try:
            for one in published:
                try:
                    sockets = listen(one) if one.port else listen_anywhere(one, avoid)
                except OSError as error:
                    raise await self._explained(one, error) from error
                taken.append(replace(one, port=int(sockets[0].getsockname()[1])))
                self._held.setdefault(name, {})[taken[-1]] = _Held(sockets)
            await in_thread(self.check, name, taken, ())
        except BaseException:
            await self.remove(name, taken)
            raise
        return taken

    def _named(self) -> set[int]:
        """Return all ports of this host that somebody named, whether or not they are in use."""
        named = set(self.own_ports)
        for record in self._records():
            named |= {one.port for one in record.published} | {one.port for one in record.open_host_ports}
        return named

    async def _explained(self, one: Published, error: OSError) -> ShedError:
        where = f"port {one.port} on {one.address or 'localhost'}"
        if error.errno == errno.EADDRINUSE:
            other = next((name for name, held in self._held.items() if any(one.port == its.port for its in held)), None)
            who = f"shed {other!r}" if other is not None else await in_thread(who_listens, one.port)
            free = replace(one, port=0)
            return ConflictError(
                f"{where} is in use by {who}",
                code="PORT_IN_USE",
                hint=f"choose another, or have a free one chosen: -p {str(free).removeprefix('localhost:')}"
                + (f"; or: shed ports {other} --unpublish {one.port}" if other is not None else ""),
            )
        hint = "choose one above 1023" if error.errno == errno.EACCES else "choose another address or port"
        return UsageError(f"cannot listen at {where}: {error.strerror}", code="INVALID_PORT", hint=hint)

    def _serve(self, name: str, taken: Iterable[Published]) -> None:
        for one in taken:
            held = self._held[name][one]
            for sock in held.sockets:
                acceptor = Acceptor(
                    sock,
                    partial(self._carry, name, one, held),
                    name=f"port {one.port}, of shed {name}",
                    admit=partial(self._admit, name),
                )
                held.acceptors.append(acceptor)
                acceptor.start()

    def _admit(self, name: str, accepted: socket.socket) -> bool:
        if self._counts[name] >= MOST_CONNECTIONS or self._counts.total() >= self._most:
            _linger_not(accepted)
            return False
        self._counts[name] += 1
        return True

    async def _carry(self, name: str, one: Published, held: _Held, accepted: socket.socket) -> None:
        """Carry one connection to its end.  One that the shed does not take is reset."""
        task = asyncio.current_task()
        assert task is not None
        held.tasks.add(task)
        try:
            try:
                stream = await self._guests.open_port(name, one.shed_port)
            except BaseException:
                _reset(accepted)
                raise
            try:
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                reader, writer = await asyncio.open_connection(sock=accepted)
                try:
                    await bridge(reader, writer, stream, b"", half_close=True)
                except BaseException:
                    writer.transport.abort()
                    raise
                writer.close()
            finally:
                stream.close()
        except ShedError as error:
            log.info("shed %s: a connection to port %d: %s", name, one.port, error)
            if error.code == "SHED_NOT_RUNNING":  # its VM has ended by itself
                await self.close(name)
        except asyncio.CancelledError:
            pass  # the port is published no more
        finally:
            held.tasks.discard(task)
            self._counts[name] -= 1


def _linger_not(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def _reset(sock: socket.socket) -> None:
    _linger_not(sock)
    sock.close()
