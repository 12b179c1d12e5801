"""Sheds that live as long as the client for which they were made is connected.

The record of one names its client by a random word, so that a later shed of the same name is let alone.  What a server
that was killed has left of them goes when the next one starts: no client has survived that.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable

from shed.errors import NotFoundError, ShedError
from shed.sheds.catalog import Catalog
from shed.sheds.metadata import Record
from shed.threads import in_thread

log = logging.getLogger(__name__)
Over = Callable[[Record], bool]
"""Says of the record of a shed whether that is over."""
Delete = Callable[[str, Over, str], Awaitable[None]]
"""Deletes a shed, by its name, if it is over then, for a reason that others are told."""


class Attached:
    """Has `delete` delete those sheds in `catalog` whose clients have left."""

    def __init__(self, catalog: Catalog, delete: Delete) -> None:
        self._catalog = catalog
        self._delete = delete
        self._here: set[str] = set()
        """The clients that are connected."""

    def begin(self) -> str:
        """Return a word for a client that has come."""
        client = secrets.token_hex(8)
        self._here.add(client)
        return client

    async def end(self, client: str) -> None:
        """Delete what was made for a client: it has left."""
        self._here.discard(client)
        await self.sweep()

    async def sweep(self) -> None:
        """Delete what was made for clients that are not here."""
        records = await in_thread(lambda: list(self._catalog.records()))
        await asyncio.gather(*(self._end(record.name) for record in records if self._is_over(record)))

    def _is_over(self, record: Record) -> bool:
        return record.client is not None and record.client not in self._here

    async def _end(self, name: str) -> None:
        try:
            await self._delete(name, self._is_over, "its client has left")
        except NotFoundError:
            pass
        except ShedError as error:  # the next one that ends has it tried again, as does the next server
            log.warning("shed %s, whose client has left, cannot be deleted: %s", name, error)
