"""One client: who it is, which shed it means, and what it may ask for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncssh

from shed.errors import NotFoundError, UsageError
from shed.names import check_shed_name
from shed.server.ssh.session import Session

if TYPE_CHECKING:
    from shed.server.ssh.service import Service

log = logging.getLogger(__name__)
_NOT_KEPT = ("restrict", "expiry-time", "permitlisten", "tunnel", "verify-required")
"""Options of a key that OpenSSH knows, and that would limit it."""


class Client(asyncssh.SSHServer):
    """The client behind one connection: each channel that it opens is about the shed that its user name says."""

    def __init__(self, service: Service) -> None:
        self.manager = service.manager
        self.name = ""
        """The user name."""
        self._service = service
        self._connection: asyncssh.SSHServerConnection

    def shed(self) -> str:
        """Return the shed's name.  Raises `NotFoundError` for what cannot be one, as ``_api`` and ``_bootstrap``, kept for later use."""
        try:
            return check_shed_name(self.name)
        except UsageError:
            raise NotFoundError(f"there is no shed {self.name!r}", code="SHED_NOT_FOUND") from None

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something for this client; it may outlive the connection, but not the server."""
        self._service.spawn(work)

    # From asyncssh:

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Take the connection."""
        self._connection = conn
        self._service.connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        self._service.connections.discard(self._connection)
        log.debug("client of %r left: %s", self.name, exc)

    async def begin_auth(self, username: str) -> bool:
        """Take the user name; return whether a key is needed.  The list of keys is read each time: who is struck off it is out."""
        self.name = username
        wanted = self._service.settings.ssh_authorized_keys
        if wanted is None:
            return False
        try:
            self._connection.set_authorized_keys(await asyncio.to_thread(_read_keys, wanted))
        except (OSError, ValueError) as error:
            log.error("ssh: nobody is let in: %s: %s", wanted if isinstance(wanted, Path) else "ssh.authorized_keys", error)
        return True

    def auth_completed(self) -> None:
        """Refuse a key with a restriction that is not kept here."""
        for option in _NOT_KEPT:
            if self._connection.get_key_option(option) is not None:
                log.error("ssh: a key is refused: its option %r in the list of keys is not supported", option)
                raise asyncssh.PermissionDenied(f"the option {option!r} of your key is not supported here")

    def session_requested(self) -> Session:
        """Open a session channel."""
        return Session(self)


def _read_keys(wanted: Path | tuple[str, ...]) -> asyncssh.SSHAuthorizedKeys:
    """Return the list of keys.  Raises `OSError`, `ValueError`."""
    return asyncssh.import_authorized_keys(wanted.read_text() if isinstance(wanted, Path) else "\n".join(wanted))
