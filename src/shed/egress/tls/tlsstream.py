"""TLS over a socket in the event loop, with an end for each direction.

asyncio's own TLS ends both directions together, and its transports own the socket; the relay's sockets have owners that
cut them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

READ = 64 * 1024
"""Bytes that are taken at once."""
_T = TypeVar("_T")


class TlsStream:
    """One side of TLS by `sock`, which it does not close.

    With `name` it is the client of the host of that name, else the server.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, name: str | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self.sock = sock
        self.received = self.sent = 0
        """Bytes of TLS, by the sides of a shed: what it got, and what it sent."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=name is None, server_hostname=name)
        self._sending = asyncio.Lock()

    async def handshake(self) -> None:
        """Agree on keys.  Raises `ssl.SSLError` when the other side is not who it should be, and `OSError`."""
        await self._do(self._tls.do_handshake)

    async def receive(self) -> bytes:
        """Return what the other side has sent, nothing when that was all.

        Raises `ConnectionResetError` when it left without a word, and `OSError`.
        """
        try:
            data = await self._do(lambda: self._tls.read(READ))
        except ssl.SSLZeroReturnError:
            return b""
        except ssl.SSLEOFError:
            raise ConnectionResetError(errno.ECONNRESET, "it ended without a word") from None
        parts, size = [data], len(data)
        with contextlib.suppress(ssl.SSLError):  # it comes again with the next call
            while data and size < READ:
                data = self._tls.read(READ)
                parts.append(data)
                size += len(data)
        return b"".join(parts)

    async def send(self, data: bytes) -> None:
        """Send all of `data`.  Raises `OSError`."""
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]
        await self._flush()

    async def finish(self) -> None:
        """Say that nothing more is sent.  What goes wrong does not matter any more."""
        with contextlib.suppress(OSError):
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            await self._flush()
            self.sock.shutdown(socket.SHUT_WR)

    async def _do(self, step: Callable[[], _T]) -> _T:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                await self._flush()
                data = await self._loop.sock_recv(self.sock, READ)
                self.sent += len(data)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    await self._flush()  # the alert that says why
                raise
            else:
                await self._flush()
                return result

    async def _flush(self) -> None:
        if not self._outgoing.pending:
            return
        async with self._sending:
            while data := self._outgoing.read():
                await self._loop.sock_sendall(self.sock, data)
                self.received += len(data)
