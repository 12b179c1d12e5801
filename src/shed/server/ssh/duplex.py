"""One SSH channel as awaitable reads and writes, with backpressure both ways."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

import asyncssh

from shed.errors import ShedError

if TYPE_CHECKING:
    from shed.server.ssh.connection import Connection
    from shed.sheds.manager import Manager

STDERR: int = asyncssh.EXTENDED_DATA_STDERR
_MOST_WAITING = 256 * 1024
"""Received bytes that wait to be read before the channel holds back the rest, which is a window at most."""


Channel = asyncssh.SSHServerChannel[bytes] | asyncssh.SSHTCPChannel[bytes] | asyncssh.SSHUNIXChannel[bytes]


class GoneError(ShedError):
    """The client has closed the channel, or is gone."""

    code = "CLIENT_GONE"


class Owner(Protocol):
    """The client that a channel belongs to, as its channels see it."""

    name: str
    """The user name, which says the shed."""
    connection: Connection
    manager: Manager
    arriving: asyncio.Semaphore
    """Room for connections that come from the guest."""

    def shed(self) -> str:
        """Return the shed's name.  Raises `NotFoundError`."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something for this client; it may outlive the connection, but not the server."""
        ...

    def opened(self, what: str) -> None:
        """Have it written down that the client opens a channel for `what`."""
        ...

    async def agent_socket(self) -> str:
        """Return the path of a socket in the guest that leads to the client's agent, or nothing."""
        ...


class Duplex:
    """What asyncssh's sessions have in common: to be mixed into one of them.

    Its callbacks turn into `read` and `write`.
    """

    def __init__(self, connection: Connection) -> None:
        self.channel: Channel
        self._connection = connection
        self.gone = asyncio.Event()
        """Set when the channel is closed, by whomever."""
        self._at_end: list[Callable[[], None]] = []
        self._received: deque[bytes] = deque()
        self._waiting = 0
        self._held = False
        self._ended = False
        self._came = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def when_gone(self, callback: Callable[[], None]) -> None:
        """Call back once the channel is closed; at once when it is."""
        if self.gone.is_set():
            callback()
        else:
            self._at_end.append(callback)

    async def read(self) -> bytes:
        """Return what has come, empty once the client has ended its side.  Raises `GoneError`."""
        while not self._received:
            if self.gone.is_set():
                raise GoneError("the client has closed the channel")
            if self._ended:
                return b""
            self._came.clear()
            await self._came.wait()
        data = self._received.popleft()
        self._waiting -= len(data)
        if self._held and not self._received:
            # All that was held back comes at once, and only then may it be paused again: asyncssh opens the whole
            # window with the first bytes that it delivers, so what it kept would grow without end.
            self.channel.resume_reading()
            self._held = False
            self._hold()
        return data

    async def write(self, data: bytes, kind: int | None = None) -> None:
        """Send `data`, as standard error when `kind` says so; returns when there is room for more.

        Raises `GoneError`.
        """
        if self.gone.is_set() or self.channel.is_closing():
            raise GoneError("the client has closed the channel")
        try:
            self.channel.write(data, kind)
        except OSError:
            raise GoneError("the channel takes no more") from None
        if not self._room.is_set():
            await self._room.wait()
        if not self._connection.room.is_set():
            await self._connection.room.wait()

    # From asyncssh:

    def connection_made(self, chan: Any) -> None:
        """Take the channel."""
        self.channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Take the client's bytes."""
        self._received.append(data)
        self._waiting += len(data)
        self._hold()
        self._came.set()

    def _hold(self) -> None:
        if self._waiting > _MOST_WAITING and not self._held:
            self._held = True
            self.channel.pause_reading()

    def eof_received(self) -> bool:
        """Take the client's end of file; our side stays open."""
        self._ended = True
        self._came.set()
        return True

    def pause_writing(self) -> None:
        """The client's window is full."""
        self._room.clear()

    def resume_writing(self) -> None:
        """The client takes more."""
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is closed."""
        self.gone.set()
        self._came.set()
        self._room.set()
        callbacks, self._at_end = self._at_end, []
        for callback in callbacks:
            callback()
