"""The connections of the SSH port: what is offered to a client before it says which shed it wants."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import asyncssh

from shed.config.server import Settings
from shed.server.ssh.connection import Client, Connection
from shed.sheds.manager import Manager
from shed.version import VERSION

log = logging.getLogger(__name__)
KEEPALIVE = 30.0
"""Seconds of silence after which a client is asked whether it is still there; after three questions it is taken for gone."""
LOGIN_TIMEOUT = 60.0
_FAREWELL = 1.0


class Service:
    """Serves clients with the private key `host_key`; who may come in is said by `settings`, and in `data`.

    Takes a moment to make: not on the event loop.
    """

    def __init__(self, host_key: bytes, data: Path, settings: Settings, manager: Manager) -> None:
        self.manager = manager
        self.data = data
        self.settings = settings
        self.connections: set[Connection] = set()
        """All that are open."""
        self._options = asyncssh.SSHServerConnectionOptions(
            server_factory=lambda: Client(self),
            server_host_keys=[asyncssh.import_private_key(host_key)],
            server_version=f"shed_{VERSION}",
            config=None,
            gss_host=None,
            encoding=None,
            line_editor=False,
            compression_algs=["none"],
            login_timeout=LOGIN_TIMEOUT,
            keepalive_interval=KEEPALIVE,
        )
        asyncssh.set_log_level(logging.WARNING)  # else each step of each connection has its line
        self._warned: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def serve(self, listener: socket.socket) -> None:
        """Accept what comes to `listener`."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self._options), sock=listener)

    async def close(self) -> None:
        """Hang up on everybody."""
        if self._server is not None:
            self._server.close()
        leaving = list(self.connections)
        for connection in leaving:
            connection.close()
        if leaving:
            await asyncio.wait([asyncio.ensure_future(connection.wait_closed()) for connection in leaving], timeout=_FAREWELL)
        for connection in list(self.connections):
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
