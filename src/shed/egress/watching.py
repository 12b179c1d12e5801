"""Those who are told of each decision as it is made: the server, over its connection to the relay's process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from typing import Any

from shed.egress import wire

MOST_WAITING = 2000
"""Messages that wait for one who does not read."""


class Watchers:
    """All of them, and what they are told.

    ``{"entry": …}`` is what the log has too, ``{"began": …}`` a connection that is allowed, and ``{"missed": n}`` that
    so many messages were left out here, because they were not read fast enough.
    """

    def __init__(self) -> None:
        self._all: set[_Watcher] = set()

    def tell(self, message: dict[str, Any]) -> None:
        """Tell all of them; called in the event loop."""
        for watcher in self._all:
            watcher.put(message)

    async def serve(self, client: socket.socket) -> None:
        """Tell `client` until it leaves."""
        client.setblocking(False)
        watcher = _Watcher(client)
        self._all.add(watcher)
        sending = asyncio.ensure_future(watcher.send())
        leaving = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(client, 1))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._all.discard(watcher)
            for task in (sending, leaving):
                task.cancel()
                with contextlib.suppress(OSError, asyncio.CancelledError):
                    await task


class _Watcher:
    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._waiting: deque[dict[str, Any]] = deque()
        self._missed = 0
        self._news = asyncio.Event()

    def put(self, message: dict[str, Any]) -> None:
        if len(self._waiting) < MOST_WAITING:
            self._waiting.append(message)
        else:
            self._missed += 1
        self._news.set()

    async def send(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                await loop.sock_sendall(self._client, wire.encoded(self._waiting.popleft()))
            if self._missed:
                missed, self._missed = self._missed, 0
                await loop.sock_sendall(self._client, wire.encoded({"missed": missed}))
