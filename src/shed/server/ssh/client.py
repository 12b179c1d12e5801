"""One client: who it is, which shed it means, and what it may ask for."""

from __future__ import annotations

import asyncio
import logging
import shlex
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol

import asyncssh

from shed.backends.base import Stream
from shed.config.server import Settings
from shed.egress.relay.pace import Pace
from shed.errors import NotFoundError, ShedError, UsageError
from shed.names import check_shed_name
from shed.server.ssh.agent import AgentLine
from shed.server.ssh.agentgate import Verdict
from shed.server.ssh.connection import Connection
from shed.server.ssh.keys import read_keys
from shed.server.ssh.knownhosts import KnownHosts
from shed.server.ssh.limits import (
    AGENT_BURST,
    AGENT_PER_SECOND,
    LOGIN_SECONDS,
    MOST_ARRIVING,
    MOST_CHANNELS,
    MOST_LISTENERS,
    MOST_TOLD,
    Crowd,
)
from shed.server.ssh.logins import Logins
from shed.server.ssh.relay import Relay
from shed.server.ssh.remote import GuestListener, Open, listen
from shed.server.ssh.session import Session
from shed.sheds.manager import Manager
from shed.text import visible

log = logging.getLogger(__name__)
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
ADVICE = "This server lets in nobody without a key.  Run `shed ssh-config --install`, then: ssh shed-NAME"
"""What a client without a right key is told."""
_NOT_KEPT = ("restrict", "expiry-time", "permitlisten", "tunnel", "verify-required")
"""Options of a key that OpenSSH knows, and that would limit it."""


class Service(Protocol):
    """What serves the clients, as one of them sees it."""

    manager: Manager
    settings: Settings
    data: Path
    crowd: Crowd
    logins: Logins
    known_hosts: KnownHosts

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that ends with the server at the latest."""
        ...

    def warn(self, text: str) -> None:
        """Log what is wrong with the configuration, once, however often clients try."""
        ...


class Client(asyncssh.SSHServer):
    """The client behind one connection: each channel that it opens is about the shed that its user name says."""

    def __init__(self, service: Service) -> None:
        self.manager = service.manager
        self.name = ""
        """The user name."""
        self.connection: Connection
        self.arriving = asyncio.Semaphore(MOST_ARRIVING)
        """Room for connections that come from the guest."""
        self._service = service
        self._channels = 0
        self._came = self._entered = 0.0
        self._told = self._named = False
        self._agent: asyncio.Task[str] | None = None
        self.known_hosts = service.known_hosts
        self._agent_pace = Pace(AGENT_BURST, AGENT_PER_SECOND)
        self._agent_used: set[str] = set()
        self._agent_refused: set[str] = set()
        """What was written down, and told, of the agent."""
        self._sessions: set[Session] = set()
        self._listeners: set[GuestListener] = set()
        self._listening = 0
        """Those, and the ones that are being made."""

    def shed(self) -> str:
        """Return the shed's name.

        Raises `NotFoundError` for what cannot be one, as ``_api`` and ``_bootstrap``, which are kept for later use.
        """
        try:
            return check_shed_name(self.name)
        except UsageError:
            raise NotFoundError(f"there is no shed {self.name!r}", code="SHED_NOT_FOUND") from None

    @property
    def fingerprint(self) -> str:
        """Of the client's key."""
        return self.connection.fingerprint

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something for this client; it may outlive the connection, but not the server."""
        self._service.spawn(work)

    async def agent_socket(self) -> str:
        """Return the path of a socket in the guest that leads to the client's agent.

        Empty when it offers none, or none can be made.
        """
        if not self.connection.forwards_agent:
            return ""
        if self._agent is None:
            self._agent = asyncio.create_task(self._listen_for_agent())
        return await asyncio.shield(self._agent)

    async def _listen_for_agent(self) -> str:
        async def open_(stream: Stream, origin: list[str]) -> AgentLine:
            return AgentLine(self, stream)

        listener = await self._listen("unix", open_)
        return "" if listener is None else listener.address

    async def agent_turn(self) -> None:
        """Return when the shed may ask the agent for something again."""
        await self._agent_pace.turn()

    async def agent_judged(self, verdict: Verdict) -> None:
        """Write down what the agent is used for; tell in all sessions why it is not.  Each thing once."""
        if verdict.used and verdict.used not in self._agent_used:
            self._agent_used.add(verdict.used)
            self.opened(f"agent {verdict.used}")
        if not verdict.why or verdict.why in self._agent_refused or len(self._agent_refused) >= MOST_TOLD:
            return
        self._agent_refused.add(verdict.why)
        text = f"shed {self.name!r} was refused your SSH agent: {verdict.why}"
        if verdict.words:
            text += f"; to allow it: shed update {self.name} --ssh-agent {shlex.quote(','.join(verdict.words))}"
        log.info("%s", visible(text))
        self.manager.events.tell("agent.refused", self.name, visible(text))
        for session in list(self._sessions):
            self.spawn(session.tell(text))

    async def _listen(self, what: str, open_: Open) -> GuestListener | None:
        if self._listening >= MOST_LISTENERS:
            log.debug("the client of %r wants too many listeners", self.name)
            return None
        self._listening += 1
        try:
            listener = await listen(self, what, open_)
        except BaseException as error:
            self._listening -= 1
            if not isinstance(error, ShedError):
                raise
            log.debug("shed %r does not listen for %s: %s", self.name, what, error)
            return None
        self._listeners.add(listener)
        listener.when_closed(lambda: self._stopped(listener))
        self._service.logins.opened(self, f"listen {what}")
        return listener

    def _stopped(self, listener: GuestListener) -> None:
        self._listening -= 1
        self._listeners.discard(listener)

    def _take_channel(self) -> None:
        if self._channels >= MOST_CHANNELS:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_RESOURCE_SHORTAGE, f"{MOST_CHANNELS} channels are open on this connection"
            )
        self._channels += 1

    def _give_channel(self) -> None:
        self._channels -= 1

    # From asyncssh:

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Take the connection."""
        assert isinstance(conn, Connection)
        self.connection = conn
        self._came = time.monotonic()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        self._service.crowd.leave(self.connection)
        for listener in list(self._listeners):
            listener.close()
        if self._entered:
            self._service.logins.left(self, time.monotonic() - self._entered)
        elif self.connection.refused:
            self._service.logins.refused(
                self.connection.peer, f"refused {', '.join(self.connection.refused)}", self.name
            )
        elif (
            self.name or time.monotonic() - self._came > LOGIN_SECONDS - 1
        ):  # else it only looked whether SSH is spoken here
            self._service.logins.refused(self.connection.peer, "it showed no key", self.name)

    async def begin_auth(self, username: str) -> bool:
        """Take the user name; a key is needed in any case.

        The keys are read each time: whoever is struck off is out.
        """
        if self._named:
            raise asyncssh.ProtocolError("the user name may not change")
        self._named, self.name = True, username
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
        """Offer it once, so that a client whose keys are all refused, or who has none, shows its user what to do.

        There is no question.
        """
        return not self._told

    def get_kbdint_challenge(
        self, username: str, lang: str, submethods: str
    ) -> tuple[str, str, str, list[tuple[str, bool]]]:
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
                self.connection.refused.append(self.fingerprint)
                raise asyncssh.PermissionDenied(f"the option {option!r} of your key is not supported here")
        self._entered = time.monotonic()
        self._service.crowd.known(self.connection)
        self._service.logins.entered(self)

    async def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> Relay:
        """Open a connection to a port of the shed's loopback.

        There is no way from here to other machines, or to this one.
        """
        if dest_host.lower() not in LOOPBACK:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED,
                f"only the shed's own ports, as localhost, not those of {dest_host!r}",
            )
        self._take_channel()
        try:
            stream = await self.manager.guests.open_port(self.shed(), dest_port)
        except ShedError as error:
            self._give_channel()
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, visible(error.message)) from None
        except BaseException:
            self._give_channel()
            raise
        if self.connection.is_closed():
            self._give_channel()
            stream.close()
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "nobody waits for it any more")
        self.opened(f"forward {dest_port}")
        relay = Relay(self, stream)
        relay.when_gone(self._give_channel)
        return relay

    def opened(self, what: str) -> None:
        """Have it written down that the client opens a channel for `what`."""
        self._service.logins.opened(self, what)

    async def server_requested(self, listen_host: str, listen_port: int) -> GuestListener | bool:
        """Listen on the shed's loopback, whatever address the client wants."""

        async def open_(stream: Stream, origin: list[str]) -> Relay:
            host, port = origin or ("127.0.0.1", "0")
            assert listener is not None
            relay = Relay(self, stream)
            await self.connection.create_connection(lambda: relay, listen_host, listener.get_port(), host, int(port))
            return relay

        listener = await self._listen(f"tcp {listen_port}", open_)
        return False if listener is None else listener

    def session_requested(self) -> Session:
        """Open a session channel."""
        self._take_channel()
        session = Session(self)
        session.when_gone(self._give_channel)
        self._sessions.add(session)
        session.when_gone(lambda: self._sessions.discard(session))
        return session
