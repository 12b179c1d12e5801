"""A running server: from locks and sockets to the last connection closed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterable

from shed.server.accept import raise_file_limit
from shed.server.app import App, Server
from shed.server.http import HttpConnection
from shed.server.listen import only_server, tcp_listener, unix_listener
from shed.server.routes import ROUTES
from shed.server.service.notify import ready
from shed.sheds.folders import prepare

log = logging.getLogger(__name__)
_FAREWELL = 2.0
"""Seconds that connections with a request under way have to send their answer when the server ends."""


def serve(server: Server) -> None:
    """Serve until SIGTERM, SIGINT or a request to stop; VMs stay.  Raises `ShedError` when it cannot begin."""
    paths, settings = server.paths, server.settings
    raise_file_limit()
    prepare(paths)
    signal.signal(signal.SIGTERM, _end)  # until the event loop takes it: sockets go away in any case
    with contextlib.ExitStack() as held:
        held.enter_context(only_server(paths.data, f"the data folder {paths.data}"))
        local = held.enter_context(unix_listener(paths.socket))
        public = None
        if settings.http_port is not None:
            public = held.enter_context(tcp_listener(settings.bind_address, settings.http_port))
        server.ssh.listen()
        asyncio.run(_serve(server, local, public))


def _end(*_: object) -> None:
    raise SystemExit(0)


async def _serve(server: Server, local: socket.socket, public: socket.socket | None) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop.set)
    connections = Connections(App(server, ROUTES))
    await server.manager.open()
    # Not start_unix_server: from Python 3.13 on it looks up the address that the socket was bound by, and that led through a descriptor.
    listeners = [await asyncio.start_server(connections.local, sock=local)]
    if public is not None:
        listeners.append(await asyncio.start_server(connections.public, sock=public))
    server.ssh.open()
    log.info("listening at %s%s", server.paths.socket, f" and {public.getsockname()}" if public else "")
    ready()
    await server.stop.wait()
    log.info("stopping; sheds keep running")
    for listener in listeners:
        listener.close()
    await server.ssh.close()
    await server.workers.close()
    await connections.close()
    await server.manager.close()


class Connections:
    """The connections that are open."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._open: dict[asyncio.Task[None], HttpConnection] = {}

    async def local(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a client of the Unix socket."""
        await self._serve(HttpConnection(reader, writer, self._app, local=True))

    async def public(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a client of the TCP port."""
        await self._serve(HttpConnection(reader, writer, self._app, local=False))

    async def _serve(self, connection: HttpConnection) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = connection
        try:
            await connection.serve()
        except asyncio.CancelledError:
            pass  # the server ends; asyncio would log it as an error
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


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    chosen = list(tasks)
    for task in chosen:
        task.cancel()
    await asyncio.gather(*chosen, return_exceptions=True)
