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
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from shed.accept import Acceptor
from shed.api.ports import PublishedPort
from shed.config.server import Settings
from shed.egress.hostports import HostPort
from shed.errors import ConflictError, NotFoundError, ShedError, UsageError
from shed.sheds.bridge import bridge
from shed.sheds.guests import Guests
from shed.sheds.listeners import who_listens
from shed.sheds.metadata import Record
from shed.sheds.portspec import Published
from shed.threads import in_thread

log = logging.getLogger(__name__)
MOST_PORTS = 64
"""That one shed publishes."""
MOST_CONNECTIONS = 1024
"""Through all published ports of one shed at once; others are reset."""
_BACKLOG = 512
_AGAIN = 5.0
"""Seconds after which a port that was in use is tried again, for a shed that runs already."""
_TRIES = 50
_RESET = struct.pack("ii", 1, 0)
"""struct linger: close at once, with a reset."""
_NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
_Port = TypeVar("_Port", Published, HostPort)
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
    """The published ports of all sheds of one server, which has `own_ports` for itself.

    `records` returns what is known of these sheds.
    """

    def __init__(self, guests: Guests, settings: Settings, records: Records, own_ports: Mapping[int, str]) -> None:
        self._guests = guests
        self._settings = settings
        self._records = records
        self._own_ports = own_ports
        self._held: dict[str, dict[Published, _Held]] = {}
        """By shed."""
        self._problems: dict[tuple[str, Published], str] = {}
        """Of sheds that run: ports that are tried again."""
        self._counts: Counter[str] = Counter()
        """How many connections each shed has through its ports."""
        self._most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
        """Connections of all sheds: the other descriptors are for the server."""

    def check(self, name: str, published: Sequence[Published], host_ports: Sequence[HostPort]) -> None:
        """Say whether the shed `name` may have these ports, whether or not they are free.  Blocks for a moment.

        Raises `UsageError`, `ConflictError` (PORT_IN_USE).
        """
        if max(len(published), len(host_ports)) > MOST_PORTS:
            raise UsageError(f"a shed cannot have more than {MOST_PORTS} ports", code="INVALID_PORT", hint="name fewer")
        _check_once([one.port for one in published if one.port], "of this host is published")
        _check_once([one.shed_port for one in host_ports], "of host.shed.internal leads to the host")
        for one in published:
            if one.address is not None and one.address not in self._addresses():
                raise UsageError(
                    f"ports of sheds are published on this host's loopback, not on {one.address}",
                    code="INVALID_PORT",
                    hint="leave the address out, or have publish_addresses in server.yaml allow it",
                )
        for port in [one.port for one in published] + [other.port for other in host_ports]:
            if (use := self._own_ports.get(port)) is not None:
                raise _in_use(f"port {port} is this server's own: {use}", "choose another")
        lead, reach = {one.port: name for one in published}, {one.port: name for one in host_ports}
        for record in self._records():
            if record.name != name:
                lead.update({one.port: record.name for one in record.published if one.port in reach})
                reach.update({one.port: record.name for one in record.open_host_ports if one.port in lead})
        for port in lead.keys() & reach.keys():
            raise _in_use(
                f"port {port} of this host leads to shed {lead[port]!r} and would be open to shed {reach[port]!r}: no "
                "shed reaches another",
                "choose another port, or take one of them away with `shed ports`",
            )

    @contextlib.asynccontextmanager
    async def held(self, name: str, published: Sequence[Published]) -> AsyncIterator[list[Published]]:
        """Take the ports for a shed that is about to run, and serve them once the block has ended well.

        Yields them with the numbers of those that were to be free ones.  Raises `ConflictError` (PORT_IN_USE),
        `UsageError`.
        """
        await self.close(name)
        taken = await self._take(name, published)
        try:
            yield list(taken)
        except BaseException:
            await _give_back(taken)
            raise
        self._serve(name, taken)

    async def add(self, name: str, published: Sequence[Published]) -> list[Published]:
        """Publish ports of a shed that runs, and return them with their numbers.  Raises as `held` does."""
        taken = await self._take(name, published)
        self._serve(name, taken)
        return list(taken)

    async def remove(self, name: str, published: Iterable[Published]) -> None:
        """Publish these ports of a shed no more, and cut the connections through them."""
        for one in published:
            self._problems.pop((name, one), None)
            if (held := self._held.get(name, {}).pop(one, None)) is not None:
                await held.close()

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
        await _give_back(self._held.pop(name, {}))

    async def close_all(self) -> None:
        """Publish nothing at all any more."""
        for name in list(self._held):
            await self.close(name)

    def shown(self, record: Record) -> list[PublishedPort]:
        """Return the published ports of a shed as the API has them."""
        open_now = self._held.get(record.name, {})
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

    def _addresses(self) -> set[str]:
        return {"127.0.0.1", "::1", *self._settings.publish_addresses}

    async def _take(self, name: str, published: Sequence[Published]) -> dict[Published, _Held]:
        """Return sockets that listen, by what they are for."""
        taken: dict[Published, _Held] = {}
        avoid = {one.port for record in await in_thread(lambda: list(self._records())) for one in record.published}
        try:
            for one in published:
                sockets = _listen_anywhere(one, avoid) if not one.port else _listen(one)
                taken[replace(one, port=int(sockets[0].getsockname()[1]))] = _Held(sockets)
        except OSError as error:
            await _give_back(taken)
            raise await self._explained(one, error) from error
        except BaseException:
            await _give_back(taken)
            raise
        return taken

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

    def _serve(self, name: str, taken: dict[Published, _Held]) -> None:
        for one, held in taken.items():
            self._held.setdefault(name, {})[one] = held
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
                await bridge(reader, writer, stream, b"", half_close=True)
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


def _listen(one: Published) -> list[socket.socket]:
    """Return sockets that listen for `one`.  Raises `OSError`."""
    if one.address is not None:
        return [_listener(one.address, one.port)]
    first = _listener("127.0.0.1", one.port)
    try:
        return [first, _listener("::1", int(first.getsockname()[1]))]
    except OSError as error:
        if error.errno in _NOT_HERE:  # no IPv6 on this host
            return [first]
        first.close()
        raise


def _listen_anywhere(one: Published, avoid: set[int]) -> list[socket.socket]:
    """Return sockets that listen for `one` at a free port that none of `avoid` is.  Raises `OSError`."""
    for _ in range(_TRIES):
        try:
            sockets = _listen(one)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:  # by IPv6 alone it may be in use
                raise
            continue
        if sockets[0].getsockname()[1] not in avoid:
            return sockets
        for sock in sockets:
            sock.close()
    raise OSError(errno.EADDRINUSE, "no free port was found")


def _listener(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family, backlog=_BACKLOG)


async def _give_back(taken: dict[Published, _Held]) -> None:
    for held in taken.values():
        await held.close()


def _check_once(ports: Sequence[int], what: str) -> None:
    for one in ports:
        if ports.count(one) > 1:
            raise UsageError(f"port {one} {what} twice", code="INVALID_PORT", hint="name each port once")


def _in_use(sentence: str, hint: str) -> ConflictError:
    return ConflictError(sentence, code="PORT_IN_USE", hint=hint)


def _linger_not(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def _reset(sock: socket.socket) -> None:
    _linger_not(sock)
    sock.close()


def without(known: Sequence[_Port], gone: Collection[int], what: str) -> list[_Port]:
    """Return those of `known` whose number on this host is none of `gone`.

    Raises `NotFoundError` (PORT_NOT_PUBLISHED) for a number that none has; `what` ends the sentence.
    """
    if missing := set(gone) - {one.port for one in known}:
        raise NotFoundError(f"port {min(missing)} is not {what}", code="PORT_NOT_PUBLISHED")
    return [one for one in known if one.port not in gone]
