"""A running server: from locks and sockets to the last connection closed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from functools import partial

from shed.accept import Acceptor
from shed.fsutil import atomic_write, raise_file_limit
from shed.images.service import Images
from shed.server.app import App, Server
from shed.server.connections import Connections
from shed.server.listen import only_server, tcp_listener, unix_listener
from shed.server.routes import ROUTES
from shed.server.service.notify import ready
from shed.server.tcp_callers import TcpCallers
from shed.sheds.folders import prepare
from shed.threads import use_pools

log = logging.getLogger(__name__)


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
        if server.ssh.port is not None:
            server.manager.ports.own_ports[server.ssh.port] = "SSH"
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
    use_pools(loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop.set)
    connections = Connections(
        App(server, ROUTES), TcpCallers(server.tokens, server.audit), server.manager.catalog.machines
    )
    server.tokens.when_removed = partial(_soon, loop, connections)
    await server.manager.open()
    sweeping = asyncio.create_task(asyncio.to_thread(_sweep, server.images))
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
    server.manager.events.close()
    await connections.close()
    await server.manager.close()
    await sweeping
    server.audit.close()


def _sweep(images: Images) -> None:
    """Remove parts of blobs that nobody goes on with, and what killed builds have left."""
    try:
        removed = images.sweep()
    except OSError as error:
        log.warning("cannot look for leftovers of downloads: %s", error)
    else:
        log.log(logging.INFO if removed else logging.DEBUG, "%d leftovers of downloads and builds removed", removed)
