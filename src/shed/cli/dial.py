"""`shed server dial-stdio`: standard input and output as a connection to this machine's server, for the clients of ``ssh://`` addresses."""

from __future__ import annotations

import os
import socket
import threading

from shed.cli.options import Options
from shed.cli.parsing import Parser
from shed.client.config import resolve
from shed.client.transport import connect

_CHUNK = 1 << 16


def dial_stdio(words: list[str], options: Options) -> int:
    """Carry bytes until both halves have ended, or the server's has and nobody is left to read."""
    about = (
        "Carry one connection to the server over standard input and output.  It is what `ssh://` addresses run at "
        "the other end."
    )
    Parser("server dial-stdio", about).parse(words, options)
    server = socket.socket(fileno=connect(resolve(options.server or "local", config=options.config)).detach())
    threading.Thread(target=_feed, args=(server,), daemon=True).start()
    while data := server.recv(_CHUNK):
        _write(data)
    os._exit(0)  # the other thread may be reading for ever


def _feed(server: socket.socket) -> None:
    """Carry standard input to the server."""
    try:
        while data := os.read(0, _CHUNK):
            server.sendall(data)
        server.shutdown(socket.SHUT_WR)
    except OSError:
        os._exit(1)


def _write(data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(1, view) :]
    except OSError:  # the client has gone, and the server sees it
        os._exit(1)
