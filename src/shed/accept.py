"""Accepting connections so that nobody can end the server, or fill its log, by opening many of them.

For one listening socket, on the event loop:

    acceptor = Acceptor(listener, serve, name="HTTP on 127.0.0.1:8080", admit=admit)
    acceptor.start()
    ...
    acceptor.close()

`serve` is a coroutine function; it gets each accepted socket, non-blocking and its own to close, in a task of its own.
For streams, begin it with ``reader, writer = await asyncio.open_connection(sock=accepted)``; for a protocol, with
``loop.connect_accepted_socket``.  Who does, ends that transport before an error leaves `serve`, since the socket is
closed then: a transport that outlives it bars all later ones with the same descriptor.  `admit`, when given, is asked
first, and what it refuses is closed at once: limits on connections, in all or for each peer, belong there.

asyncio's own servers answer a lack of file descriptors with a traceback for each try (up to its backlog at once).  Here
accepting pauses, connections wait in the kernel's queue, and the log gets one line in a minute.
`shed.fsutil.raise_file_limit` makes that lack unlikely.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)
PAUSE = 0.5
"""Seconds without accepting after a failure."""
QUIET = 60.0
"""Seconds between two lines of the log about the same listener."""
_AT_ONCE = 64
"""Connections that are accepted before others get their turn."""
Serve = Callable[[socket.socket], Coroutine[Any, Any, None]]


class Acceptor:
    """Accepts what comes to `listener`, and has `serve` serve it; `name` is for the log."""

    def __init__(
        self, listener: socket.socket, serve: Serve, *, name: str, admit: Callable[[socket.socket], bool] | None = None
    ) -> None:
        self._listener = listener
        self._serve = serve
        self._name = name
        self._admit = admit
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._failures = 0
        self._told = -QUIET

    def start(self) -> None:
        """Begin; the event loop runs."""
        self._listener.setblocking(False)
        self._resume()

    def close(self) -> None:
        """Accept no more, and close the listening socket.  What was accepted goes on."""
        if self._pause is not None:
            self._pause.cancel()
        if self._listener.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()

    def _resume(self) -> None:
        self._pause = None
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                accepted, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:  # it left before its turn came
                continue
            except OSError as error:  # EMFILE, ENFILE, ENOBUFS, ENOMEM
                self._failed(error)
                return
            accepted.setblocking(False)
            if self._admit is not None and not self._admit(accepted):
                accepted.close()
                continue
            task = asyncio.get_running_loop().create_task(self._run(accepted))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _failed(self, error: OSError) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener)
        self._pause = loop.call_later(PAUSE, self._resume)
        self._failures += 1
        if time.monotonic() - self._told >= QUIET:
            log.error("%s: new connections wait: %s (failure %d)", self._name, error.strerror, self._failures)
            self._told = time.monotonic()

    async def _run(self, accepted: socket.socket) -> None:
        try:
            await self._serve(accepted)
        except OSError as error:  # it left before it was served
            log.debug("%s: a connection was lost: %s", self._name, error)
            accepted.close()
        except Exception:
            log.exception("%s: a connection failed", self._name)
            accepted.close()
