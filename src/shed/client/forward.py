"""Ports of this machine that lead to ports of a shed, through its server.

Each local connection is one of the Connect API.  So there is nothing that could be lost and had to be restored: a
server, or a shed, that comes back is there for the next connection, and one that is away for a moment is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shed.client import streams
from shed.client.address import Address
from shed.client.messages import CONNECT, connect_target
from shed.client.transport import NotRunningError
from shed.errors import ConflictError, ShedError, UsageError

LOCALHOST = "localhost"
"""Both of this machine's loopback addresses."""
PATIENCE = 20.0
"""Seconds that a connection waits for a server that is being restarted."""
_PAUSE = 0.2
_BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Rule:
    """A local port, or 0 for any, and the shed's port that it leads to; `host` is where it listens."""

    local: int
    remote: int
    host: str = LOCALHOST

    def __str__(self) -> str:
        place = "" if self.host == LOCALHOST else f"{f'[{self.host}]' if ':' in self.host else self.host}:"
        return f"{place}{self.local}:{self.remote}"


def parse_rule(text: str, *, host: str | None = None) -> Rule:
    """Return the rule ``PORT``, ``LOCAL:PORT``, ``:PORT`` (any local port) or ``HOST:LOCAL:PORT``.

    `host` is for those without one.

    Raises `UsageError`.
    """
    rest, _, remote = text.rpartition(":")
    place, _, local = rest.rpartition(":")
    if place.startswith("[") and place.endswith("]"):
        place = place[1:-1]
    if not rest and not text.startswith(":"):
        local = remote
    numbers = [int(word) if word.isascii() and word.isdigit() else -1 for word in (local or "0", remote)]
    named = _is_ipv6(place) if ":" in place else "[" not in place
    if not (named and 0 <= numbers[0] <= 65535 and 1 <= numbers[1] <= 65535):
        raise UsageError(
            f"{text!r} is not a port to forward",
            code="INVALID_PORT",
            hint="write PORT, LOCAL:PORT, :PORT or HOST:LOCAL:PORT",
        )
    return Rule(numbers[0], numbers[1], place or host or LOCALHOST)


def distinct(rules: Sequence[Rule]) -> Sequence[Rule]:
    """Return `rules`, of which no two have the same local port.  Raises `UsageError` (INVALID_PORT)."""
    places = [(rule.host, rule.local) for rule in rules if rule.local]
    if twice := [port for host, port in places if places.count((host, port)) > 1]:
        hint = "name each one once, or write :PORT for any"
        raise UsageError(f"local port {twice[0]} is there twice", code="INVALID_PORT", hint=hint)
    return rules


class Forwarder:
    """Listens for some rules, until it is closed.

    `say` hears a sentence when a port begins to fail, and when it works again.
    """

    def __init__(
        self, address: Address, shed: str, *, start: bool = False, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self._address = address
        self._shed = shed
        self._start = start
        self._say = say
        self._trouble: dict[int, str] = {}
        """What was said last of each port that cannot be reached."""
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self, rule: Rule) -> list[tuple[str, int]]:
        """Listen, and return the addresses at which that is.  Raises `ConflictError` (PORT_IN_USE), `UsageError`."""
        bound = []
        for listener in _listeners(rule):
            bound.append(listener.getsockname()[:2])
            self._servers.append(
                await asyncio.start_server(self._serve(rule.remote), sock=listener, limit=streams.CHUNK)
            )
        return bound

    async def close(self) -> None:
        """Stop listening and drop what is open."""
        for server in self._servers:
            server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _serve(self, port: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._connect(port, reader, writer))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

        return accept

    async def _connect(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            stream = await self._dial(port)
        except ShedError as error:
            streams.reset(writer)
            if self._trouble.get(port) != error.message:
                self._trouble[port] = error.message
                self._say(error.message)
            return
        except BaseException:
            streams.reset(writer)
            raise
        if self._trouble.pop(port, None) is not None:
            self._say(f"port {port} of shed {self._shed!r} works again")
        await streams.carry((reader, writer), stream, halves=self._address.ssh is None)

    async def _dial(self, port: int) -> streams.Streams:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return await streams.upgrade(
                    self._address, "GET", connect_target(self._shed, port), CONNECT, start=self._start
                )
            except NotRunningError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_PAUSE)


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def _listeners(rule: Rule) -> list[socket.socket]:
    hosts: Sequence[str] = ("127.0.0.1", "::1") if rule.host == LOCALHOST else (rule.host,)
    with contextlib.ExitStack() as made:
        found: list[socket.socket] = []
        for host in hosts:
            port = found[0].getsockname()[1] if found else rule.local
            try:
                found.append(made.enter_context(_listener(host, port)))
            except OSError as error:
                if found and error.errno != errno.EADDRINUSE:
                    continue  # a machine without IPv6
                raise _refused(rule, host, port, error) from None
        made.pop_all()
    return found


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)


def _refused(rule: Rule, host: str, port: int, error: OSError) -> ShedError:
    if error.errno == errno.EADDRINUSE:
        hint = f"choose another one: {port + 1 if port < 65535 else ''}:{rule.remote}, or any: :{rule.remote}"
        return ConflictError(f"port {port} on {host} is in use", code="PORT_IN_USE", hint=hint)
    reason = error.strerror or str(error)
    return UsageError(f"cannot listen on {host} port {port}: {reason}", hint="choose another address or port")
