"""A running server: from locks and sockets to the last connection closed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from shed.errors import ForbiddenError, UnavailableError
from shed.fsutil import atomic_write
from shed.server.accept import Acceptor, raise_file_limit
from shed.server.app import App, Server
from shed.server.caller import Caller, of_unix_socket
from shed.server.gate import MAX_CONNECTIONS, MAX_PER_TOKEN, MAX_STRANGERS, Gate
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
            held.enter_context(_told_token(server, public))
        server.ssh.listen()
        asyncio.run(_serve(server, local, public))


@contextlib.contextmanager
def _told_token(server: Server, listener: socket.socket) -> Iterator[None]:
    """Tell this user's clients the server's own token, by the address that it is for."""
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    path = server.paths.run / "tokens"
    atomic_write(path, f"{url} {server.tokens.own()}\n", mode=0o600)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _end(*_: object) -> None:
    raise SystemExit(0)


def _soon(loop: asyncio.AbstractEventLoop, connections: Connections, token: str) -> None:
    loop.call_soon_threadsafe(connections.hang_up, token)


async def _serve(server: Server, local: socket.socket, public: socket.socket | None) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop.set)
    connections = Connections(App(server, ROUTES), Gate(server.tokens, server.audit))
    server.tokens.when_removed = partial(_soon, loop, connections)
    await server.manager.open()
    sweeping = asyncio.create_task(asyncio.to_thread(_sweep, server.paths.images))
    acceptors = [Acceptor(local, connections.local, name="the Unix socket")]
    if public is not None:
        acceptors.append(Acceptor(public, connections.public, name="the TCP port", admit=connections.room))
    for acceptor in acceptors:
        acceptor.start()
    server.ssh.open()
    log.info("listening at %s%s", server.paths.socket, f" and {public.getsockname()}" if public else "")
    ready()
    await server.stop.wait()
    log.info("stopping; sheds keep running")
    for acceptor in acceptors:
        acceptor.close()
    await server.ssh.close()
    await server.workers.close()
    await connections.close()
    await server.manager.close()
    await sweeping
    server.audit.close()


def _sweep(images: Path) -> None:
    """Remove parts of blobs that nobody goes on with, and what killed builds have left."""
    from shed.oci.store import LayoutStore  # noqa: PLC0415  a server starts faster without

    try:
        removed = LayoutStore(images).sweep()
    except OSError as error:
        log.warning("cannot look for leftovers of downloads: %s", error)
    else:
        log.log(logging.INFO if removed else logging.DEBUG, "%d leftovers of downloads and builds removed", removed)


class Connections:
    """The connections that are open: to the Unix socket any number, to the TCP port as many as `shed.server.gate` allows."""

    def __init__(self, app: App, gate: Gate) -> None:
        self._app = app
        self._gate = gate
        self._open: dict[asyncio.Task[None], HttpConnection] = {}
        self._public: dict[HttpConnection, asyncio.Task[None]] = {}

    async def local(self, accepted: socket.socket) -> None:
        """Serve a client of the Unix socket."""
        try:
            caller = of_unix_socket(accepted)
        except ForbiddenError as error:
            log.warning("%s", error)
            accepted.close()
            return
        await self._serve(HttpConnection(*await asyncio.open_connection(sock=accepted), self._app, lambda headers: caller))

    async def public(self, accepted: socket.socket) -> None:
        """Serve a client of the TCP port."""
        task = asyncio.current_task()
        assert task is not None
        connection = HttpConnection(*await asyncio.open_connection(sock=accepted), self._app, self._admit)
        self._public[connection] = task
        strangers = [other for other in self._public if other.caller is None]
        for oldest in strangers[: len(strangers) - MAX_STRANGERS] if len(strangers) > MAX_STRANGERS else ():
            self._public.pop(oldest).cancel()
        try:
            await self._serve(connection)
        finally:
            self._public.pop(connection, None)

    def _admit(self, headers: dict[str, str]) -> Caller:
        caller = self._gate.admit(headers)
        this = asyncio.current_task()
        if sum(other.caller == caller for other, task in self._public.items() if task is not this) >= MAX_PER_TOKEN:
            message = f"the token {caller.name!r} has {MAX_PER_TOKEN} connections open"
            raise UnavailableError(message, code="TOO_MANY_CONNECTIONS", hint="close some, or use another token for what is apart")
        return caller

    def room(self, accepted: socket.socket) -> bool:
        """Say whether the TCP port takes another connection."""
        return len(self._public) < MAX_CONNECTIONS + MAX_STRANGERS

    def hang_up(self, token: str) -> None:
        """End the connections that were opened with a token."""
        for connection, task in self._public.items():
            if connection.caller is not None and connection.caller.name == token:
                task.cancel()

    async def _serve(self, connection: HttpConnection) -> None:
        task = asyncio.current_task()
        assert task is not None
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


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    chosen = list(tasks)
    for task in chosen:
        task.cancel()
    await asyncio.gather(*chosen, return_exceptions=True)
