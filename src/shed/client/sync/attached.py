# Generated from shed/client/aio/attached.py: change that one, and run `make sdk`.
"""A shed that the server deletes when this client leaves, however it leaves."""

from __future__ import annotations

from shed.client import messages
from shed.client.address import Address
from shed.client.sync.requests import Exchange, completed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.client.options import ShedOptions
    from shed.client.sync.requests import Sink


class Attached:
    """Makes a shed for as long as the block lasts; yields what the server says of it.

    The server deletes it at the end of the block, and when this program ends: a connection tells it.  A block that ends
    waits until it is gone.  An exception while it is made has it undone.
    """

    def __init__(self, address: Address, name: str, options: ShedOptions) -> None:
        body = messages.new_shed(name, options) | {"attached": True}
        self._exchange = Exchange(address, "POST", "/api/sheds?progress=blob", body=body, accept=messages.EVENTS)

    def __enter__(self) -> dict[str, Any]:
        return self.make()

    def __exit__(self, *_: object) -> None:
        self.leave()

    def make(self, on_event: Sink | None = None) -> dict[str, Any]:
        """Make the shed, and return what the server says of it."""
        self._exchange.__enter__()
        try:
            return completed(self._exchange, on_event)
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Have the server delete the shed, and wait until it is gone."""
        try:
            self._exchange.leave()
        finally:
            self._exchange.__exit__()
