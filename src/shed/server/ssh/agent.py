"""The client's SSH agent, as a shed has it: each message is judged before it is passed on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import asyncssh

from shed.backends.base import Stream
from shed.errors import BackendError, ShedError
from shed.server.ssh.agentgate import Gate, Verdict
from shed.server.ssh.agentwire import (
    FAILURE,
    IDENTITIES_ANSWER,
    MOST_ANSWER,
    MOST_REQUEST,
    SIGN_ANSWER,
    SUCCESS,
    Binding,
    List,
    framed,
)
from shed.server.ssh.duplex import Duplex, GoneError, Owner
from shed.server.ssh.knownhosts import KnownHosts
from shed.threads import in_thread


class AgentUser(Owner, Protocol):
    """The client whose agent it is."""

    known_hosts: KnownHosts

    async def agent_turn(self) -> None:
        """Return when the shed may ask for something again."""
        ...

    async def agent_judged(self, verdict: Verdict) -> None:
        """Have it told and written down what the agent is used for, or why it is not."""
        ...


class AgentLine:
    """A connection from the guest of `client`, by the guest's end `stream`, to the client's agent."""

    def __init__(self, client: AgentUser, stream: Stream) -> None:
        self._client = client
        self._stream = stream
        self._gate = Gate(client.known_hosts)
        self._agent: _Agent | None = None
        self._received = b""
        self._at_end: list[Callable[[], None]] = []
        client.spawn(self._serve())

    def when_gone(self, callback: Callable[[], None]) -> None:
        """Call back once it is closed."""
        self._at_end.append(callback)

    async def _serve(self) -> None:
        serving = asyncio.ensure_future(self._answer_all())
        leaving = asyncio.ensure_future(self._client.connection.wait_closed())
        try:
            await asyncio.wait([serving, leaving], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (serving, leaving):
                task.cancel()
            await asyncio.gather(serving, leaving, return_exceptions=True)
            self._stream.close()
            if self._agent is not None:
                self._agent.channel.close()
            for callback in self._at_end:
                callback()

    async def _answer_all(self) -> None:
        try:
            while message := await self._message():
                await self._client.agent_turn()
                await self._stream.write(framed(await self._answer(message)))
        except (BackendError, GoneError, asyncssh.Error, OSError):
            pass  # one of the two has left

    async def _message(self) -> bytes:
        """Return the next message of the guest without its length; empty at the end, and for one that is too long."""
        while len(self._received) < 4 or len(self._received) < 4 + int.from_bytes(self._received[:4], "big"):
            if len(self._received) >= 4 and int.from_bytes(self._received[:4], "big") > MOST_REQUEST:
                return b""
            if not (data := await self._stream.read()):
                return b""
            self._received += data
        end = 4 + int.from_bytes(self._received[:4], "big")
        message, self._received = self._received[4:end], self._received[end:]
        return message

    async def _answer(self, message: bytes) -> bytes:
        try:
            verdict = await in_thread(self._judge, message)
        except BackendError:
            raise
        except ShedError as error:
            verdict = Verdict(None, why=error.message)
        await self._client.agent_judged(verdict)
        if verdict.request is None:
            return FAILURE
        answer = await self._ask(message)
        if isinstance(verdict.request, Binding):
            return SUCCESS  # whatever the agent makes of it: it tells apart what is asked here
        wanted = IDENTITIES_ANSWER if isinstance(verdict.request, List) else SIGN_ANSWER
        return answer if answer[:1] == bytes([wanted]) else FAILURE

    def _judge(self, message: bytes) -> Verdict:
        record = self._client.manager.catalog.record(self._client.shed())
        return self._gate.judge(message, record.agent_rule)

    async def _ask(self, message: bytes) -> bytes:
        if self._agent is None:
            agent = _Agent(self._client.connection)
            await self._client.connection.create_agent_channel().open(lambda: agent)
            self._agent = agent
        return await self._agent.ask(message)


class _Agent(Duplex, asyncssh.SSHUNIXSession[bytes]):
    """A channel to the client's agent."""

    async def ask(self, message: bytes) -> bytes:
        """Return the agent's answer to a message.  Raises `GoneError`."""
        await self.write(framed(message))
        received = b""
        while len(received) < 4 or len(received) < 4 + int.from_bytes(received[:4], "big"):
            data = await self.read()
            received += data
            if not data or len(received) > 4 + MOST_ANSWER:
                raise GoneError("the agent has left")
        if len(received) != 4 + int.from_bytes(received[:4], "big"):
            raise GoneError("the agent says more than it was asked")
        return received[4:]
