# Generated from shed/client/aio/prebuilds.py: change that one, and run `make sdk`.
"""The requests about prebuilds."""

from __future__ import annotations

from shed.client import messages
from shed.client.address import Address
from shed.client.messages import object_of, objects_of
from shed.client.sync.requests import request, work
from shed.names import check_shed_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Unpack

    from shed.client.options import ShedOptions
    from shed.client.sync.requests import Sink


class PrebuildsApi:
    """The part of `Api` that is about prebuilds: sheds that are made ready ahead."""

    address: Address

    def prebuilds(self, *, on_event: Sink | None = None) -> list[dict[str, Any]]:
        """Return all prebuilds; `on_event` gets a warning for each one whose record cannot be read."""
        answer = object_of(request(self.address, "GET", "/api/prebuilds"))
        messages.tell_warnings(answer, on_event)
        return objects_of(answer, "prebuilds")

    def prebuild(self, name: str) -> dict[str, Any]:
        """Return one prebuild."""
        return object_of(request(self.address, "GET", _target(name)))

    def create_prebuild(
        self,
        name: str,
        commands: Sequence[str],
        *,
        limit: float | None = None,
        every: float | None = None,
        on_event: Sink | None = None,
        **options: Unpack[ShedOptions],
    ) -> dict[str, Any]:
        """Make a shed ready by `commands`, each run by ``sh -ec``, and keep it; return what is known of it.

        They have `limit` seconds together.  With `every` the server builds it anew after so many seconds.  `options`
        are those of the shed; what is made from it has them, too.
        """
        body = messages.given(shed=messages.new_shed(name, options), commands=list(commands), limit=limit, every=every)
        return object_of(work(self.address, "POST", "/api/prebuilds", body=body, on_event=on_event))

    def build_prebuild(self, name: str, *, on_event: Sink | None = None) -> dict[str, Any]:
        """Build a prebuild anew, and return what is known of it."""
        return object_of(work(self.address, "POST", _target(name, "/build"), on_event=on_event))

    def remove_prebuild(self, name: str) -> None:
        """Remove a prebuild and its snapshot; sheds that were made from it keep what they have."""
        request(self.address, "DELETE", _target(name))


def _target(name: str, what: str = "") -> str:
    return f"/api/prebuilds/{check_shed_name(name)}{what}"
