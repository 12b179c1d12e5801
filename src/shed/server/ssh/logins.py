"""Logins by SSH, refusals, and what was opened: a line in the server's log, and a record in the audit log.

Whoever is not let in causes a few lines in a minute at most, the others are counted; what clients say is shown, and
obeyed by no terminal.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol

from shed.api.access import Right
from shed.errors import UnauthorizedError
from shed.server.caller import Caller
from shed.text import visible

if TYPE_CHECKING:
    from shed.server.audit import Audit
    from shed.server.peer import Peer
    from shed.server.ssh.connection import Connection

log = logging.getLogger(__name__)
REFUSALS = 10
"""Most lines about refusals in a minute."""
_LONGEST_NAME = 63
"""Characters of a user name that are shown."""


class Visitor(Protocol):
    """A client, as it is written down."""

    name: str
    """The user name."""
    connection: Connection

    @property
    def fingerprint(self) -> str:
        """Of its key."""
        ...


class Logins:
    """Writes to the log, and to `audit`."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._minute = 0
        self._refusals = 0

    def entered(self, client: Visitor) -> None:
        """A client is let in."""
        who, name, peer = client.fingerprint, _shown(client.name), client.connection.peer
        log.info("login to %s by %s from %s", name, who, peer)
        self._record(client, "ssh login")

    def left(self, client: Visitor, seconds: float) -> None:
        """A client that was let in has left."""
        log.info(
            "logout of %s by %s from %s after %.0f s",
            _shown(client.name),
            client.fingerprint,
            client.connection.peer,
            seconds,
        )

    def opened(self, client: Visitor, what: str) -> None:
        """A client opens a channel; `what` are words of ours, a port at most."""
        self._record(client, f"ssh {what}")

    def refused(self, peer: Peer, why: str, name: str = "") -> None:
        """Somebody is not let in; `why` are words of ours."""
        self._audit.stranger("ssh", "ssh login", UnauthorizedError(why), peer=str(peer))
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            if self._refusals > REFUSALS:
                log.warning("%d more refusals in that minute", self._refusals - REFUSALS)
            self._minute, self._refusals = minute, 0
        self._refusals += 1
        if self._refusals <= REFUSALS:
            log.warning("no login%s from %s: %s", f" to {_shown(name)}" if name else "", peer, why)

    def _record(self, client: Visitor, action: str) -> None:
        who = Caller("key", client.fingerprint, Right.USE)
        self._audit.of_caller(who, action, shed=_shown(client.name), peer=str(client.connection.peer))


def _shown(name: str) -> str:
    return visible(name[:_LONGEST_NAME])
