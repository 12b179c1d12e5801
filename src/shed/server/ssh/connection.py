"""One connection of the SSH port: asyncssh's, and what it leaves out."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

import asyncssh
from asyncssh.packet import PacketDecodeError

from shed.server.peer import Peer
from shed.server.ssh.limits import MOST_TRIES
from shed.sshkeys import fingerprint

log = logging.getLogger(__name__)
TOO_MANY = "Too many keys were refused.  Run `shed ssh-config --install`, then: ssh shed-NAME"


class Connection(asyncssh.SSHServerConnection):
    """asyncssh's connection, with three differences.

    Login tries are limited, agents can be forwarded to the guest, and writers wait while the socket is full; asyncssh
    relies on the client's windows for that.
    """

    def __init__(self, options: asyncssh.SSHServerConnectionOptions, peer: Peer) -> None:
        super().__init__(asyncio.get_running_loop(), options)
        self.peer = peer
        self.fingerprint = ""
        """Of the key that let the client in."""
        self.refused: list[str] = []
        """Fingerprints of the keys that did not."""
        self.room = asyncio.Event()
        """Whether the socket takes more."""
        self.room.set()
        self.forwards_agent = False
        """Whether the client has offered its agent."""
        self._failures = 0

    async def validate_public_key(self, username: str, key_data: bytes, msg: bytes, signature: bytes) -> bool:
        """Say whether a key lets the client in, and remember which one."""
        right = await super().validate_public_key(username, key_data, msg, signature)
        if not right:
            self.refused.append(fingerprint(key_data))
        elif msg:
            self.fingerprint = fingerprint(key_data)
        return right

    def send_userauth_failure(self, partial_success: bool) -> None:
        """Say that this did not let the client in; the last time, hang up."""
        self._failures += 1
        if self._failures > MOST_TRIES:
            self.disconnect(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, TOO_MANY)
        else:
            super().send_userauth_failure(partial_success)

    def pause_writing(self) -> None:
        """The socket is full."""
        self.room.clear()

    def resume_writing(self) -> None:
        """The socket takes more."""
        self.room.set()

    def connection_lost(self, exc: Exception | None = None) -> None:
        """The socket is closed."""
        self.room.set()
        super().connection_lost(exc)

    def internal_error(self, exc_info: Any = None, error_logger: Any = None) -> None:
        """End the connection because of a bug, and have the log say so: asyncssh would keep it to itself.

        No bugs of ours: half a message, and what asyncssh stumbles over when it finishes a request of a connection that
        is gone.
        """
        found = exc_info or sys.exc_info()
        if not self.is_closed() and not isinstance(found[1], PacketDecodeError):
            log.error("ssh: a bug ended a connection", exc_info=found)
        super().internal_error(exc_info, error_logger)

    async def create_agent_listener(self) -> bool:
        """Take the offer: the socket in the guest is made when the shed runs."""
        allowed = self.check_key_permission("agent-forwarding") and self.check_certificate_permission(
            "agent-forwarding"
        )
        self.forwards_agent = self.forwards_agent or allowed
        return allowed
