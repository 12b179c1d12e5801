"""The one live connection to a shed's agent that all its streams share, and what becomes of a guest that misuses it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from shed.backends.base import Connection, LinkAbusedError

log = logging.getLogger(__name__)
_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 300.0
"""Seconds in which a guest that misused its link is not talked to; twice as many after each further time."""
_GOOD_SECONDS = 60.0
"""For which a link must live without that until it is forgotten."""


class Link:
    """The connection to the agent of the shed `name`: made when first needed, shared, dropped when it closes.

    `dial` makes a new connection to an agent that is configured and ready; `ended` is called when one closes by itself.
    """

    def __init__(
        self,
        name: str,
        dial: Callable[[], Awaitable[Connection]],
        *,
        ended: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._ended = ended
        self._dial = dial
        self._clock = clock
        self._connection: Connection | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._making = asyncio.Lock()
        self._misuse = ""
        self._times = 0
        self._since = clock()
        """When the connection was made, or the last one was misused."""

    @property
    def live(self) -> bool:
        """Whether there is a connection that has not closed."""
        return self._connection is not None

    @property
    def connection(self) -> Connection | None:
        """The connection, if there is one that has not closed."""
        return self._connection

    @property
    def misuse(self) -> str:
        """What the guest did lately that had its link dropped; empty for a guest that is well."""
        if self.live and self._misuse and self._clock() > self._since + _GOOD_SECONDS:
            self._misuse, self._times = "", 0
        return self._misuse

    async def get(self) -> Connection:
        """Return the live connection, dialling when there is none.

        Raises `LinkAbusedError` for a guest that misused it a moment ago, and whatever dialling raises.
        """
        async with self._making:
            if self._connection is None:
                self._check_pause()
                try:
                    connection = await self._dial()
                except LinkAbusedError as error:
                    self._blame(error)
                    raise
                self._set(connection)
            assert self._connection is not None
            return self._connection

    def set(self, connection: Connection) -> None:
        """Take over the `connection` to a guest that was started anew."""
        self._misuse, self._times = "", 0
        self._set(connection)

    async def drop(self, why: Exception | None = None) -> None:
        """Close the connection, if any, because of `why`; the VM runs on."""
        if isinstance(why, LinkAbusedError):
            self._blame(why)
        connection, self._connection = self._connection, None
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
        if connection is not None:
            await connection.close()

    def _set(self, connection: Connection) -> None:
        self._connection, self._since = connection, self._clock()
        self._watcher = asyncio.create_task(self._watch(connection))

    async def _watch(self, connection: Connection) -> None:
        misuse = await connection.wait_closed()
        if self._connection is connection:
            if misuse is not None:
                self._blame(misuse)
            self._connection = self._watcher = None
            self._ended()
        await connection.close()

    def _blame(self, error: LinkAbusedError) -> None:
        if not self.misuse:
            self._times = 0
        self._misuse, self._since = error.message, self._clock()
        self._times += 1
        log.warning("shed %s: its link is dropped, and not made again for %.0f s: %s", self._name, self._pause(), error)

    def _pause(self) -> float:
        return min(_FIRST_PAUSE * 2.0 ** (self._times - 1), _LONGEST_PAUSE)

    def _check_pause(self) -> None:
        left = self._since + self._pause() - self._clock() if self._misuse else 0.0
        if left > 0:
            raise LinkAbusedError(
                f"the agent of shed {self._name!r} is not talked to for {left:.0f} s: {self._misuse}",
                hint=f"`shed stop {self._name}` ends it, whatever it does",
            )
