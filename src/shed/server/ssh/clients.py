"""The connections of the SSH port: what is offered to a client before it says which shed it wants."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import asyncssh

from shed.accept import Acceptor
from shed.config.server import Settings
from shed.server.audit import Audit
from shed.server.peer import peer_of
from shed.server.ssh.client import Client
from shed.server.ssh.connection import Connection
from shed.server.ssh.knownhosts import KnownHosts
from shed.server.ssh.limits import KEEPALIVE_QUESTIONS, KEEPALIVE_SECONDS, LOGIN_SECONDS, Crowd
from shed.server.ssh.logins import Logins
from shed.sheds.manager import Manager
from shed.version import VERSION

log = logging.getLogger(__name__)
_FAREWELL = 1.0
_LIKE = "OpenSSH_9.9"
"""What OpenSSH's clients must read to say that nobody reads their output any more; they say it to nobody else."""


class Clients:
    """Serves clients with the private key `host_key`; who may come in is said by `settings`, and in `data`.

    Takes a moment to make: not on the event loop.
    """

    def __init__(self, host_key: bytes, data: Path, settings: Settings, manager: Manager, audit: Audit) -> None:
        self.manager = manager
        self.data = data
        self.settings = settings
        self.crowd = Crowd()
        self.logins = Logins(audit)
        self.known_hosts = KnownHosts()
        self._options = asyncssh.SSHServerConnectionOptions(
            server_factory=lambda: Client(self),
            server_host_keys=[asyncssh.import_private_key(host_key)],
            server_version=f"{_LIKE}_shed_{VERSION}",
            config=None,
            gss_host=None,
            encoding=None,
            line_editor=False,
            compression_algs=["none"],
            login_timeout=LOGIN_SECONDS,
            keepalive_interval=KEEPALIVE_SECONDS,
            keepalive_count_max=KEEPALIVE_QUESTIONS,
        )
        asyncssh.set_log_level(logging.WARNING)  # else each step of each connection has its line
        self._warned: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._acceptor: Acceptor | None = None

    def serve(self, listener: socket.socket) -> None:
        """Accept what comes to `listener`."""
        self._acceptor = Acceptor(listener, self._accepted, name="the SSH port")
        self._acceptor.start()

    async def _accepted(self, accepted: socket.socket) -> None:
        peer = peer_of(accepted, self.manager.catalog.machines())
        if not self.crowd.room(peer.key):
            self.logins.refused(peer, "too many connections of it are open")
            accepted.close()
            return
        connection = Connection(self._options, peer)
        self.crowd.enter(connection, peer.key)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, accepted)
        except OSError:
            self.crowd.leave(connection)
            connection.abort()
            raise

    async def close(self) -> None:
        """Hang up on everybody."""
        if self._acceptor is not None:
            self._acceptor.close()
        leaving = self.crowd.everybody()
        for connection in leaving:
            connection.close()
        if leaving:
            await asyncio.wait(
                [asyncio.ensure_future(connection.wait_closed()) for connection in leaving], timeout=_FAREWELL
            )
        for connection in self.crowd.everybody():
            connection.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def warn(self, text: str) -> None:
        """Log what is wrong with the configuration, once, however often clients try."""
        if text not in self._warned:
            self._warned.add(text)
            log.warning("ssh: %s", text)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that ends with the server at the latest."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
