"""What the flavour without asyncio does by itself: connections, threads, forwarding.

`shed.client.aio.driver` has the same names for asyncio; all that is above the two is written once, there.
"""

from __future__ import annotations

import select

from shed.client import transport
from shed.client.address import Address

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    import socket
    from collections.abc import Callable, Coroutine
    from typing import Any, ParamSpec, TypeVar

    Stream = socket.socket
    T = TypeVar("T")
    P = ParamSpec("P")

_CHUNK = 1 << 17
_SHUT_WR = 1
"""Of `socket`, whose import takes long."""


class Connection:
    """A connection to the server."""

    def __init__(self, sock: _socket.socket) -> None:
        self._socket = sock

    def read(self, seconds: float | None = None, *, output: int | None = None) -> bytes:
        """Return what comes next, nothing at the end.

        Raises `TimeoutError` after `seconds`, `OSError` when the connection breaks, and `BrokenPipeError` when nobody
        reads the descriptor `output` any more.
        """
        if output is not None:
            poll = select.poll()
            poll.register(self._socket.fileno(), select.POLLIN)
            poll.register(output, 0)
            if any(fd == output for fd, _ in poll.poll(None if seconds is None else seconds * 1000)):
                raise BrokenPipeError
        self._socket.settimeout(seconds)
        return self._socket.recv(_CHUNK)

    def write(self, data: bytes, seconds: float | None = None) -> None:
        """Send `data`.  Raises `TimeoutError` after `seconds`, and `OSError`."""
        self._socket.settimeout(seconds)
        self._socket.sendall(data)

    def end(self) -> None:
        """Say that nothing more is sent.  Raises `OSError`."""
        self._socket.shutdown(_SHUT_WR)

    def close(self) -> None:
        """Drop the connection.  Can be called twice."""
        self._socket.close()


def connect(address: Address, *, start: bool = True) -> Connection:
    """Return a connection to the server.  With `start`, the local one is started when it is not running."""
    return Connection(transport.connect(address, start=start))


def open_connection(address: Address, method: str, target: str, protocol: str) -> Connection:
    """Return a new connection that has become a `protocol` stream."""
    return Connection(transport.upgrade(address, method, target, protocol))


def open_stream(address: Address, method: str, target: str, protocol: str) -> Stream:
    """Return the socket of a new connection that has become a `protocol` stream."""
    import socket  # noqa: PLC0415  slow to import, and most requests do without

    return socket.socket(fileno=transport.upgrade(address, method, target, protocol).detach())


def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what `work` returns: without asyncio nobody else waits for it."""
    return work(*args, **kwargs)


def shielded(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what `work` returns: without asyncio nobody cancels it."""
    return work(*args, **kwargs)


class forwarded:  # noqa: N801  used as a function is, as contextlib's are; importing that takes longer than this
    """Forwards a port while the block lasts, by an event loop in a thread.

    Yields the local port, which is `local` unless that is 0.
    """

    def __init__(self, address: Address, shed: str, port: int, local: int) -> None:
        import asyncio  # noqa: PLC0415  for those who forward
        import threading  # noqa: PLC0415

        from shed.client.forward import Forwarder  # noqa: PLC0415

        self._ports = local, port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._forwarder = Forwarder(address, shed, start=True)

    def __enter__(self) -> int:
        from shed.client.forward import Rule  # noqa: PLC0415  as above

        self._thread.start()
        try:
            return self._wait(self._forwarder.listen(Rule(*self._ports)))[0][1]
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        self._wait(self._forwarder.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        import asyncio  # noqa: PLC0415  as above

        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
