"""Streams into the guests of sheds: commands, TCP ports, listeners, and how an agent is.

A stopped shed is started for a command, and for nothing else; a suspended one goes on for a connection, too.  A link
that turns out to be dead is made again, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol

from shed.backends.base import Connection, Stream
from shed.errors import BackendError, ConflictError, ConnectError
from shed.guest.protocol import PORT_EXEC, PORT_LISTEN, PORT_PROXY
from shed.sheds.activity import Counted, Use
from shed.sheds.agent import control, read_line
from shed.sheds.clock import keep_clocks
from shed.sheds.entry import Entry
from shed.sheds.link import Link
from shed.sheds.names import keep_names

log = logging.getLogger(__name__)
Tell = Callable[[str], Awaitable[None]]
_HEALTH_TIMEOUT = 3.0
_DIAL_TIMEOUT = 25.0
"""Seconds for the guest to say whether it has connected; it tries both loopback addresses for ten at most."""


class FindLink(Protocol):
    """Returns the link to a shed that runs, starting it if it may; `Manager.link`."""

    async def __call__(self, name: str, tell: Tell | None, *, autostart: bool, wakes: bool = False) -> Link:
        """Raises `NotFoundError`, `UnavailableError` (SHED_NOT_RUNNING), and what a start raises."""
        ...


class Guests:
    """Opens streams into the guests that `link` leads to; `names` has the links that are up."""

    def __init__(self, link: FindLink, names: Mapping[str, Entry]) -> None:
        self._link = link
        self._names = names
        self.use = Use()
        """Who uses them."""

    def connected(self) -> dict[str, Connection]:
        """Return the links that are up, by the names of sheds."""
        return {name: link for name, entry in self._names.items() if (link := entry.link.connection) is not None}

    async def open_exec(
        self, name: str, tell: Tell | None = None, *, autostart: bool = True, looks: bool = False
    ) -> Stream:
        """Open a stream for one command in the shed `name`, which only `looks` at it, or uses it.

        A stopped shed is started, unless `autostart` is false.

        `tell` hears ``waiting`` when that takes more than a moment, and ``starting`` when the shed is started.
        """
        open_stream = self._opened if looks else self._open
        return await open_stream(name, PORT_EXEC, tell, autostart=autostart)

    def is_up(self, name: str) -> bool:
        """Say whether a shed runs, and nobody works on it."""
        entry = self._names.get(name)
        return entry is not None and entry.link.live and not entry.doing

    async def open_port(self, name: str, port: int) -> Stream:
        """Open a stream to the guest's TCP `port`.

        A suspended shed goes on for it.  Raises `ConnectError` when nothing listens there, or the guest does not say so
        in time; `UnavailableError` (SHED_NOT_RUNNING).
        """
        what = f"port {port} of shed {name!r}"
        try:
            async with asyncio.timeout(_DIAL_TIMEOUT):
                stream = await self._open(name, PORT_PROXY, None, autostart=False, wakes=True)
                try:
                    await stream.write(b"CONNECT %d\n" % port)
                    answer = await read_line(stream)
                    if answer == "OK":
                        return stream
                except BaseException:
                    stream.close()
                    raise
        except TimeoutError:
            raise ConnectError(f"{what}: no answer within {_DIAL_TIMEOUT:g} s", hint=f"`shed logs {name}`") from None
        except BackendError as error:  # the VM, or its agent, has just gone
            raise ConnectError(f"{what}: {error.message}", hint=error.hint) from None
        stream.close()
        why = answer.removeprefix("ERR ").removeprefix(f"port {port}: ")
        raise ConnectError(f"{what}: {why}", hint=f"is something listening there? `shed exec {name} -- ss -ltn`")

    async def open_listener(self, name: str, line: str, *, autostart: bool) -> tuple[Stream, str]:
        """Ask the guest's `shed.guest.listen` for something, in one line.

        Return the stream and the answer's words behind OK.

        Raises `ConnectError` with the guest's reason.
        """
        stream = await self._open(name, PORT_LISTEN, None, autostart=autostart)
        try:
            async with asyncio.timeout(_DIAL_TIMEOUT):
                await stream.write(f"{line}\n".encode())
                answer = await read_line(stream)
            if answer.split(" ")[0] != "OK":
                raise ConnectError(f"shed {name!r}: {answer.removeprefix('ERR ')}", hint="")
        except TimeoutError:
            stream.close()
            raise ConnectError(
                f"shed {name!r}: no answer within {_DIAL_TIMEOUT:g} s", hint=f"`shed logs {name}`"
            ) from None
        except BaseException:
            stream.close()
            raise
        return stream, answer.removeprefix("OK").strip()

    @contextlib.contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Have the block count as a use of a shed."""
        self.use.begin(name)
        try:
            yield
        finally:
            self.use.end(name)

    async def wake(self, name: str) -> None:
        """Have a shed go on if it is suspended.  Raises `UnavailableError` (SHED_NOT_RUNNING), and what that raises."""
        await self._link(name, None, autostart=False, wakes=True)

    async def _open(self, name: str, port: int, tell: Tell | None, *, autostart: bool, wakes: bool = False) -> Stream:
        """Open a stream that counts as a use of the shed until it is closed."""
        self.use.begin(name)
        try:
            stream = await self._opened(name, port, tell, autostart=autostart, wakes=wakes)
        except BaseException:
            self.use.end(name)
            raise
        return Counted(stream, partial(self.use.end, name))

    async def _opened(self, name: str, port: int, tell: Tell | None, *, autostart: bool, wakes: bool = False) -> Stream:
        link = await self._link(name, tell, autostart=autostart, wakes=wakes)
        connection: Connection | None = None
        try:
            connection = await link.get()
            return await connection.open(port)
        except BackendError as error:  # the VM, or the connection, died a moment ago
            log.info("shed %s: %s; trying once more", name, error)
            if (
                connection is not None and link.connection is connection
            ):  # else somebody who also saw it has made another
                await link.drop(error)
        link = await self._link(name, tell, autostart=autostart, wakes=wakes)
        return await (await link.get()).open(port)

    async def health(self, name: str) -> dict[str, Any]:
        """Return what the agent of a running shed says of itself.

        Raises `ConflictError`, and `BackendError` when it does not answer.
        """
        entry = self._names.get(name)
        if entry is None or not entry.link.live:
            raise ConflictError(
                f"shed {name!r} is not running", code="SHED_ALREADY_STOPPED", hint=f"`shed start {name}`"
            )
        return await control(await entry.link.get(), "health", wait=_HEALTH_TIMEOUT)


async def keep_guests(guests: Callable[[], Mapping[str, Connection]], local_dir: Callable[[str], str | None]) -> None:
    """Keep the clocks of the `guests` there are right, and the names of the folders that they share known to them.

    `local_dir` returns the folder of a shed, or None.  Never returns.
    """
    await asyncio.gather(keep_clocks(guests), keep_names(guests, local_dir))
