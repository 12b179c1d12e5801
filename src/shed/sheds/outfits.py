"""What the guests of one server are told beside what their machines are: which authorities to trust, and variables."""

from __future__ import annotations

from shed.config.server import Settings
from shed.egress import certificates
from shed.sheds.boot import Outfit
from shed.sheds.folders import Folders
from shed.sheds.metadata import Record
from shed.threads import in_thread


class Outfits:
    """The outfits of the sheds of a server with these settings."""

    def __init__(self, settings: Settings) -> None:
        self._extra_cas = settings.egress_extra_cas

    async def of(self, record: Record, folders: Folders) -> Outfit:
        """Return the outfit of a shed."""
        return await in_thread(self._make, record, folders)

    def extra_authorities(self) -> tuple[str, ...]:
        """Return the certificates that the host's administrator wants trusted, as PEM.  Blocks for a moment."""
        return certificates.read(certificates.added_here() if self._extra_cas is None else self._extra_cas)

    def _make(self, record: Record, folders: Folders) -> Outfit:
        return Outfit(authorities=[certificates.for_guest(pem) for pem in self.extra_authorities()])
