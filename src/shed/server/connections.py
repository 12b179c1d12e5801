"""The HTTP connections that are open, and how many there may be."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from shed.errors import ForbiddenError, UnavailableError
from shed.server.app import App
from shed.server.caller import Caller, of_unix_socket
from shed.server.http import HttpConnection
from shed.server.peer import peer_of
from shed.server.tcp_callers import TcpCallers

log = logging.getLogger(__name__)
MAX_STRANGERS = 64
"""Most TCP connections at once whose client is not known yet.  For another one, the oldest of the peer that has most
makes way.
"""
MAX_CONNECTIONS = 1024
"""Most TCP connections at once, of clients that are known."""
MAX_PER_TOKEN = 512
"""Most of them with one token: the other half is for everybody else."""
_FRESH = 1.0
"""Seconds for which it is remembered whose the VMs are."""
_FAREWELL = 2.0
"""Seconds that connections with a request under way have to send their answer when the server ends."""


class Connections:
    """To the Unix socket there may be any number of connections.

    `guests` tells the names of sheds by the processes of their VMs.
    """

    def __init__(self, app: App, callers: TcpCallers, guests: Callable[[], Mapping[int, str]]) -> None:
        self._app = app
        self._callers = callers
        self._guests = guests
        self._open: dict[asyncio.Task[None], HttpConnection] = {}
        self._public: dict[asyncio.Task[None], HttpConnection] = {}
        self._strangers: dict[asyncio.Task[None], str] = {}
        """By their peers, the oldest first."""
        self._known: Mapping[int, str] = {}
        self._asked = -_FRESH

    async def local(self, accepted: socket.socket) -> None:
        """Serve a client of the Unix socket."""
        try:
            caller = of_unix_socket(accepted)
        except ForbiddenError as error:
            log.warning("%s", error)
            accepted.close()
            return
        await self._serve(
            HttpConnection(*await asyncio.open_connection(sock=accepted), self._app, lambda headers: caller)
        )

    async def public(self, accepted: socket.socket) -> None:
        """Serve a client of the TCP port."""
        task = _this_task()
        peer = peer_of(accepted, self._guests_now()).key
        if len(self._strangers) >= MAX_STRANGERS:
            ((most, _),) = Counter([*self._strangers.values(), peer]).most_common(1)
            oldest = next(other for other, whose in self._strangers.items() if whose == most)
            del self._strangers[oldest]
            oldest.cancel()
        self._strangers[task] = peer
        try:
            connection = HttpConnection(*await asyncio.open_connection(sock=accepted), self._app, self._admit)
            self._public[task] = connection
            await self._serve(connection)
        except asyncio.CancelledError:
            accepted.close()
        finally:
            self._strangers.pop(task, None)
            self._public.pop(task, None)

    def _guests_now(self) -> Mapping[int, str]:
        """Return what `guests` said a moment ago: it reads a file of each shed."""
        now = time.monotonic()
        if now - self._asked > _FRESH:
            self._known, self._asked = self._guests(), now
        return self._known

    def _admit(self, headers: dict[str, str]) -> Caller:
        caller, this = self._callers.admit(headers), _this_task()
        if sum(other.caller == caller for task, other in self._public.items() if task is not this) >= MAX_PER_TOKEN:
            message = f"the token {caller.name!r} has {MAX_PER_TOKEN} connections open"
            raise UnavailableError(
                message, code="TOO_MANY_CONNECTIONS", hint="close some, or use another token for what is apart"
            )
        if self._strangers.pop(this, None) is not None and caller.expires_at is not None:
            ending = asyncio.get_running_loop().call_later(max(0.0, caller.expires_at - time.time()), this.cancel)
            this.add_done_callback(lambda _: ending.cancel())
        return caller

    def room(self, accepted: socket.socket) -> bool:
        """Say whether the TCP port takes another connection."""
        return len(self._public) < MAX_CONNECTIONS + MAX_STRANGERS

    def hang_up(self, token: str) -> None:
        """End the connections that were opened with a token."""
        for task, connection in self._public.items():
            if connection.caller is not None and connection.caller.name == token:
                task.cancel()

    async def _serve(self, connection: HttpConnection) -> None:
        task = _this_task()
        self._open[task] = connection
        try:
            await connection.serve()
        except asyncio.CancelledError:
            pass  # the server ends, or the client had to make way; asyncio would log it as an error
        except Exception:
            log.exception("a connection failed")
        finally:
            del self._open[task]

    async def close(self) -> None:
        """Let answers under way be sent, then hang up."""
        await _cancel(task for task, connection in self._open.items() if connection.idle)
        if self._open:
            await asyncio.wait(list(self._open), timeout=_FAREWELL)
        await _cancel(self._open)


def _this_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    chosen = list(tasks)
    for task in chosen:
        task.cancel()
    await asyncio.gather(*chosen, return_exceptions=True)
