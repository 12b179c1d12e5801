"""A shed that the server deletes when this client leaves, however it leaves."""

from __future__ import annotations

from shed.client import messages
from shed.client.address import Address
from shed.client.aio.requests import AsyncExchange, completed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.client.aio.requests import Sink
    from shed.client.options import ShedOptions


class AsyncAttached:
    """Makes a shed for as long as the block lasts; yields what the server says of it.

    The server deletes it at the end of the block, and when this program ends: a connection tells it.  A block that ends
    waits until it is gone.  An exception while it is made has it undone.
    """

    def __init__(self, address: Address, name: str, options: ShedOptions) -> None:
        body = messages.new_shed(name, options) | {"attached": True}
        self._exchange = AsyncExchange(address, "POST", "/api/sheds?progress=blob", body=body, accept=messages.EVENTS)

    async def __aenter__(self) -> dict[str, Any]:
        return await self.make()

    async def __aexit__(self, *_: object) -> None:
        await self.leave()

    async def make(self, on_event: Sink | None = None) -> dict[str, Any]:
        """Make the shed, and return what the server says of it."""
        await self._exchange.__aenter__()
        try:
            return await completed(self._exchange, on_event)
        except BaseException:
            await self.leave()
            raise

    async def leave(self) -> None:
        """Have the server delete the shed, and wait until it is gone."""
        try:
            await self._exchange.leave()
        finally:
            await self._exchange.__aexit__()
