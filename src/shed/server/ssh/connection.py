"""One client: who it is, which shed it means, and what it may ask for."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import asyncssh
from asyncssh.packet import PacketDecodeError

from shed.errors import NotFoundError, ShedError, UsageError
from shed.names import check_shed_name
from shed.server.ssh.keys import read_keys
from shed.server.ssh.relay import Relay
from shed.server.ssh.remote import GuestListener, listen
from shed.server.ssh.session import Session

if TYPE_CHECKING:
    from shed.server.ssh.service import Service

log = logging.getLogger(__name__)
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
ADVICE = "This server lets in nobody without a key.  Run `shed ssh-config --install`, then: ssh shed-NAME"
"""What a client without a right key is told."""
_NOT_KEPT = ("restrict", "expiry-time", "permitlisten", "tunnel", "verify-required")
"""Options of a key that OpenSSH knows, and that would limit it."""


class Connection(asyncssh.SSHServerConnection):
    """asyncssh's, but for agents, which are wanted in the guest, and for full sockets: asyncssh relies on windows, which clients choose."""

    def __init__(self, options: asyncssh.SSHServerConnectionOptions) -> None:
        super().__init__(asyncio.get_running_loop(), options)
        self.room = asyncio.Event()
        """Whether the socket takes more."""
        self.room.set()
        self.forwards_agent = False
        """Whether the client has offered its agent."""

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

        No bugs of ours: half a message, and what asyncssh stumbles over when it finishes a request of a connection that is gone.
        """
        found = exc_info or sys.exc_info()
        if not self.is_closed() and not isinstance(found[1], PacketDecodeError):
            log.error("ssh: a bug ended a connection", exc_info=found)
        super().internal_error(exc_info, error_logger)

    async def create_agent_listener(self) -> bool:
        """Take the offer: the socket in the guest is made when the shed runs."""
        allowed = self.check_key_permission("agent-forwarding") and self.check_certificate_permission("agent-forwarding")
        self.forwards_agent = self.forwards_agent or allowed
        return allowed


class Client(asyncssh.SSHServer):
    """The client behind one connection: each channel that it opens is about the shed that its user name says."""

    def __init__(self, service: Service) -> None:
        self.manager = service.manager
        self.name = ""
        """The user name."""
        self.connection: Connection
        self._service = service
        self._told = False
        self._agent: asyncio.Task[str] | None = None
        self._listeners: list[GuestListener] = []

    def shed(self) -> str:
        """Return the shed's name.  Raises `NotFoundError` for what cannot be one, as ``_api`` and ``_bootstrap``, kept for later use."""
        try:
            return check_shed_name(self.name)
        except UsageError:
            raise NotFoundError(f"there is no shed {self.name!r}", code="SHED_NOT_FOUND") from None

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something for this client; it may outlive the connection, but not the server."""
        self._service.spawn(work)

    async def agent_socket(self) -> str:
        """Return the path of a socket in the guest that leads to the client's agent; empty when it offers none, or none can be made."""
        if not self.connection.forwards_agent:
            return ""
        if self._agent is None:
            self._agent = asyncio.create_task(self._listen_for_agent())
        return await asyncio.shield(self._agent)

    async def _listen_for_agent(self) -> str:
        async def open_(relay: Relay, origin: list[str]) -> None:
            await self.connection.create_agent_channel().open(lambda: relay)

        try:
            listener = await listen(self, "unix", open_)
        except ShedError as error:
            log.debug("no agent in shed %r: %s", self.name, error)
            return ""
        self._listeners.append(listener)
        return listener.address

    # From asyncssh:

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Take the connection."""
        assert isinstance(conn, Connection)
        self.connection = conn
        self._service.connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        self._service.connections.discard(self.connection)
        for listener in self._listeners:
            listener.close()
        log.debug("client of %r left: %s", self.name, exc)

    async def begin_auth(self, username: str) -> bool:
        """Take the user name; a key is needed in any case.  The keys are read each time: whoever is struck off is out."""
        self.name = username
        try:
            keys = await asyncio.to_thread(read_keys, self._service.settings.ssh_authorized_keys, self._service.data)
        except UsageError as error:
            self._service.warn(error.message)
            self.connection.set_authorized_keys(None)
        else:
            self.connection.set_authorized_keys(keys)
        return True

    def public_key_auth_supported(self) -> bool:
        """Tell also those whom nothing helps what would."""
        return True

    def kbdint_auth_supported(self) -> bool:
        """Offer it once, so that a client whose keys are all refused, or who has none, shows its user what to do.  There is no question."""
        return not self._told

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> tuple[str, str, str, list[tuple[str, bool]]]:
        """Tell.  A banner would be shown to those who get in, too: the server cannot know yet."""
        self._told = True
        return "", ADVICE, "", []

    def validate_kbdint_response(self, username: str, responses: Sequence[str]) -> bool:
        """Let nobody in."""
        return False

    def auth_completed(self) -> None:
        """Refuse a key with a restriction that is not kept here."""
        for option in _NOT_KEPT:
            if self.connection.get_key_option(option) is not None:
                self._service.warn(f"a key of the list is refused: its option {option!r} is not supported")
                raise asyncssh.PermissionDenied(f"the option {option!r} of your key is not supported here")

    async def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> Relay:
        """Open a connection to a port of the shed's loopback; there is no way from here to other machines, or to this one."""
        if dest_host.lower() not in LOOPBACK:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, f"only the shed's own ports, as localhost, not those of {dest_host!r}"
            )
        try:
            stream = await self.manager.open_port(self.shed(), dest_port)
        except ShedError as error:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, error.message) from None
        if self.connection.is_closed():
            stream.close()
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "nobody waits for it any more")
        return Relay(self, stream)

    async def server_requested(self, listen_host: str, listen_port: int) -> GuestListener | bool:
        """Listen on the shed's loopback, whatever address the client wants."""

        async def open_(relay: Relay, origin: list[str]) -> None:
            await self.connection.create_connection(lambda: relay, listen_host, listener.get_port(), origin[0], int(origin[1]))

        try:
            listener = await listen(self, f"tcp {listen_port}", open_)
        except ShedError as error:
            log.debug("shed %r does not listen on port %d: %s", self.name, listen_port, error)
            return False
        return listener

    def session_requested(self) -> Session:
        """Open a session channel."""
        return Session(self)
