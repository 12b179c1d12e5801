"""What the guest listens on for a client (``-R``, agent forwarding), and the connections that come there."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from typing import Protocol

import asyncssh

from shed.backends.base import Stream
from shed.errors import BackendError, ShedError
from shed.server.ssh.duplex import GoneError, Owner
from shed.sheds.agent import read_line

log = logging.getLogger(__name__)
_ARRIVED = re.compile(r"[0-9]{1,18}( [0-9a-f.:]{2,45} [0-9]{1,5})?")
"""What the guest says of a connection: its number, for TCP the address and port that it came from."""


class Line(Protocol):
    """A connection that is carried."""

    def when_gone(self, callback: Callable[[], None]) -> None:
        """Call back once it is closed."""
        ...


Open = Callable[[Stream, list[str]], Awaitable[Line]]
"""Carries a connection, whose end in the guest is the stream, to the client; the words say where that came from."""


class GuestListener(asyncssh.SSHListener):
    """Something that the guest of `client` listens on, until it is closed.

    `open_` opens a channel for each connection that comes.
    """

    def __init__(self, client: Owner, stream: Stream, address: str, open_: Open) -> None:
        super().__init__()
        self.address = address
        """The port, or the path of the socket, in the guest."""
        self._client = client
        self._stream = stream
        self._open = open_
        self._at_end: list[Callable[[], None]] = []
        client.spawn(self._watch())

    def when_closed(self, callback: Callable[[], None]) -> None:
        """Call back once nothing listens any more."""
        self._at_end.append(callback)

    def get_port(self) -> int:
        """Return the port."""
        return int(self.address)

    def close(self) -> None:
        """Stop listening."""
        self._stream.close()

    async def wait_closed(self) -> None:
        """There is nothing to wait for."""

    async def _watch(self) -> None:
        try:
            while True:
                told = _ARRIVED.fullmatch(await read_line(self._stream))
                if told is None:
                    log.warning("the agent of %r tells of a connection that is none", self._client.name)
                    return
                number, *origin = told.group().split(" ")
                await self._client.arriving.acquire()  # more of them wait in the guest
                self._client.spawn(self._take(number, origin))
        except BackendError:
            pass  # it was closed, by us or with the guest
        finally:
            self._stream.close()
            for callback in self._at_end:
                callback()

    async def _take(self, number: str, origin: list[str]) -> None:
        room = self._client.arriving
        try:
            stream, _ = await self._client.manager.guests.open_listener(
                self._client.shed(), f"ACCEPT {number}", autostart=False
            )
        except ShedError as error:
            log.debug("a connection in the guest of %r was lost: %s", self._client.name, error)
            room.release()
            return
        try:
            line = await self._open(stream, origin)
        except (asyncssh.Error, OSError) as error:  # the client refuses it, or has left
            log.debug("the client of %r takes no connection: %s", self._client.name, error)
            stream.close()
            room.release()
        else:
            line.when_gone(room.release)


async def listen(client: Owner, what: str, open_: Open) -> GuestListener:
    """Have the guest listen on `what`, see `shed.guest.listen`; a stopped shed is started.  Raises `ShedError`."""
    stream, address = await client.manager.guests.open_listener(client.shed(), f"LISTEN {what}", autostart=True)
    if what.startswith("tcp ") and not re.fullmatch(r"[0-9]{1,5}", address):
        stream.close()
        raise BackendError(f"the agent listens on {address[:40]!r}, which is no port", code="AGENT_PROTOCOL")
    if client.connection.is_closed():
        stream.close()
        raise GoneError("the client has left")
    return GuestListener(client, stream, address, open_)
