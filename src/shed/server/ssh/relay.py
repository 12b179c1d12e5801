"""A connection that is forwarded: a channel on one side, a stream of raw bytes into the guest on the other."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import asyncssh

from shed.backends.base import Stream
from shed.errors import BackendError
from shed.server.ssh.duplex import Duplex, GoneError, Owner

_LAST_WORDS = 1.0
"""Seconds that what a client sent before it left has to reach the guest, and the program there to take leave."""


class Relay(Duplex, asyncssh.SSHTCPSession[bytes], asyncssh.SSHUNIXSession[bytes]):
    """One connection.  Either side may end its half first."""

    def __init__(self, client: Owner, stream: Stream) -> None:
        super().__init__(client.connection)
        self._client = client
        self._stream = stream

    def session_started(self) -> None:
        """Begin."""
        self._client.spawn(self._carry())

    async def _carry(self) -> None:
        """Carry bytes until both sides have ended, or one is cut; then close both."""
        ways = asyncio.gather(self._to_guest(), self._to_client())
        leaving = asyncio.create_task(self.gone.wait())
        waiting: set[asyncio.Future[Any]] = {ways, leaving}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not ways.done():
                await asyncio.wait([ways], timeout=_LAST_WORDS)
            if ways.done():
                ways.result()
        except BackendError:
            self.channel.abort()  # not to be taken for a proper end
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            self._stream.close()
            self.channel.close()

    async def _to_guest(self) -> None:
        with contextlib.suppress(GoneError):
            while data := await self.read():
                await self._stream.write(data)
        await self._stream.write_eof()

    async def _to_client(self) -> None:
        try:
            while data := await self._stream.read():
                await self.write(data)
        except GoneError:
            while await self._stream.read():
                pass
        else:
            if not self.gone.is_set():
                self.channel.write_eof()
