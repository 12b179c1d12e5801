"""An opened connection over socket pairs: time limits, and ends in every order."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shed.egress.orders import Orders
from shed.egress.relay.flow import Flow
from shed.egress.relay.pace import Pace
from shed.egress.rules.policy import Profile, Verdict
from shed.egress.secrets.secret import Secret
from shed.egress.secrets.signing import make_authority
from shed.egress.tls import opened, opening
from shed.egress.tls.contexts import Leaves, client_context
from shed.egress.tls.opening import Opener
from shed.egress.tls.tlsstream import TlsStream
from support.waiting import until

NAME = "api.example.com"
INSIDE, OUTSIDE = make_authority("dev"), make_authority("origin")
SECRET = Secret("API", "placeholder-of-this", "the-value-of-it", (NAME,))
ORDERS = Orders(
    (Profile.parse("mine", {"rules": [{"allow": "*"}]}),),
    secrets=(SECRET,), authority=INSIDE, extra_authorities=(OUTSIDE.certificate,),
)  # fmt: skip
GET = f"GET / HTTP/1.1\r\nHost: {NAME}\r\nA: {SECRET.placeholder}\r\n\r\n".encode()
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Both:
    """A client in a shed, its relay, and the servers that the relay has connected to."""

    def __init__(self) -> None:
        self.client_sock, relay_side = socket.socketpair()
        for sock in (self.client_sock, relay_side):
            sock.setblocking(False)
        self.flow = Flow(NAME, ipaddress.ip_address("93.184.216.34"), 443, relay_side)
        self.flow.verdict = Verdict(True, "mine: allow *")
        self.told: list[dict[str, object]] = []
        self.servers: list[TlsStream] = []
        self._server_context = Leaves(OUTSIDE).context(NAME)
        self.connects = True
        opener = Opener("dev", lambda: ORDERS, self.told.append)
        found = ORDERS.opening(NAME, 443)
        assert found is not None
        self.relay = asyncio.ensure_future(opener.serve(self.flow, found, self._dial))
        self.client = TlsStream(self.client_sock, client_context((INSIDE.certificate,)), NAME)

    async def _dial(self) -> socket.socket | None:
        if not self.connects:
            self.flow.error = "93.184.216.34: Connection refused"
            return None
        near, far = socket.socketpair()
        for sock in (near, far):
            sock.setblocking(False)
        server = TlsStream(far, self._server_context)
        self.servers.append(server)
        self._shaking = asyncio.ensure_future(server.handshake())
        return near

    async def served(self, number: int = -1) -> bytes:
        """Return what a server gets next."""
        await until(lambda: bool(self.servers) and self._shaking.done())
        return await self.servers[number].receive()

    def end(self) -> None:
        """Close all sockets."""
        for sock in (self.client_sock, self.flow.client, *(server.sock for server in self.servers)):
            sock.close()


@pytest.fixture
async def both() -> AsyncIterator[Both]:
    """A connection that was just made."""
    made = Both()
    yield made
    made.relay.cancel()
    await asyncio.gather(made.relay, return_exceptions=True)
    made.end()


async def all_of(stream: TlsStream) -> bytes:
    """Return what comes until the end; a break is one, too."""
    got = b""
    with contextlib.suppress(OSError):
        while data := await stream.receive():
            got += data
    return got


async def test_requests_follow_each_other(both: Both) -> None:
    """By one connection to the server, with the value in each."""
    await both.client.handshake()
    for _ in range(3):
        await both.client.send(GET)
        assert b"A: the-value-of-it" in await both.served()
        await both.servers[0].send(OK)
        assert (await both.client.receive()).endswith(b"ok")
    assert len(both.servers) == 1
    await both.client.finish()
    assert await both.relay
    assert [entry["secrets"] for entry in both.told] == [["API"]] * 3


async def test_a_client_that_says_nothing_is_let_go(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the handshake, and between requests."""
    monkeypatch.setattr(opened, "IDLE", 0.05)
    await both.client.handshake()
    assert await all_of(both.client) == b""
    assert await both.relay


async def test_a_handshake_has_its_time(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that stops in the middle is let go; the log has why."""
    monkeypatch.setattr(opening, "_HANDSHAKE", 0.05)
    await asyncio.get_running_loop().sock_sendall(both.client_sock, b"\x16\x03\x01\x02\x00")
    assert await both.relay
    assert both.flow.error == "the shed does not finish the TLS handshake"


async def test_handshakes_wait_for_their_turn(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the shed, and with the host: one after the other when there were many."""
    turns: list[asyncio.Event] = []

    async def turn(_: Pace) -> None:
        turns.append(asyncio.Event())
        await turns[-1].wait()

    monkeypatch.setattr(Pace, "turn", turn)
    shaking = asyncio.ensure_future(both.client.handshake())
    await until(lambda: len(turns) == 1)
    assert not shaking.done()
    turns[0].set()
    await shaking
    await both.client.send(GET)
    await until(lambda: len(turns) == 2)
    assert not both._shaking.done()
    turns[1].set()
    assert b"A: the-value-of-it" in await both.served()
    await both.servers[0].send(OK)
    assert (await both.client.receive()).endswith(b"ok")


async def test_a_head_has_its_time(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slowly its bytes drip."""
    monkeypatch.setattr(opened, "HEAD", 0.1)
    await both.client.handshake()

    async def drip() -> None:
        with contextlib.suppress(OSError):
            for byte in GET:
                await both.client.send(bytes((byte,)))
                await asyncio.sleep(0.02)

    dripping = asyncio.ensure_future(drip())
    with pytest.raises(TimeoutError):
        await both.relay
    both.flow.client.close()
    await dripping
    assert not both.servers


async def test_a_client_that_leaves_takes_its_request_along(both: Both) -> None:
    """The server's end is seen at once, although it has not answered."""
    await both.client.handshake()
    await both.client.send(GET)
    assert await both.served()
    both.client_sock.close()
    with pytest.raises(ConnectionResetError):
        await both.relay
    with pytest.raises(ConnectionResetError):
        await both.servers[0].receive()


async def test_a_server_that_leaves_between_requests_is_not_missed(both: Both) -> None:
    """The client is told by the end of its own connection, as if there were no relay."""
    await both.client.handshake()
    await both.client.send(GET)
    await both.served()
    await both.servers[0].send(OK)
    await both.client.receive()
    await both.servers[0].finish()
    assert await all_of(both.client) == b""


async def test_a_server_that_leaves_at_a_later_request_breaks_the_connection(both: Both) -> None:
    """Clients try again then; an answer of ours would be taken for the server's."""
    await both.client.handshake()
    await both.client.send(GET)
    await both.served()
    await both.servers[0].send(OK)
    await both.client.receive()
    await both.client.send(GET)
    await both.served()
    both.servers[0].sock.close()
    with pytest.raises(ConnectionResetError):
        await both.relay


async def test_a_server_that_is_not_reached_is_told_of(both: Both) -> None:
    """With 502 and the reason."""
    both.connects = False
    await both.client.handshake()
    await both.client.send(GET)
    answer = await all_of(both.client)
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"shed: api.example.com cannot be reached: 93.184.216.34: Connection refused" in answer
    both.client_sock.close()
    await both.relay
    assert both.told[0]["status"] == 502


async def test_a_client_may_end_its_half_first(both: Both) -> None:
    """It still gets its answer."""
    await both.client.handshake()
    await both.client.send(GET)
    with contextlib.suppress(ssl.SSLError):
        both.client._tls.unwrap()
    await both.client._flush()
    assert await both.served()
    await both.servers[0].send(OK)
    assert (await both.client.receive()).endswith(b"ok")


async def test_an_answer_that_pauses_is_passed_on_soon(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although its end may be the beginning of a value; what follows is not lost."""
    monkeypatch.setattr(opened, "_HELD", 0.02)
    await both.client.handshake()
    await both.client.send(GET)
    await both.served()
    await both.servers[0].send(b"HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\nthe-va")
    got = b""
    while not got.endswith(b"\r\n\r\nthe-va"):
        got += await both.client.receive()
    await both.servers[0].send(b"the-value-of-it")
    while not got.endswith(b"\r\n\r\nthe-va***************"):
        assert len(got) < 500
        got += await both.client.receive()


async def test_nothing_is_left_behind(both: Both) -> None:
    """When the relay is ended in the middle of a request, its tasks end and the server's connection is closed."""
    await both.client.handshake()
    await both.client.send(GET)
    await both.served()
    before: set[Any] = {both.relay}
    both.relay.cancel()
    await asyncio.gather(*before, return_exceptions=True)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not [task for task in others if "shed" in str(task.get_coro()) and not task.done()]
    with pytest.raises(ConnectionResetError):
        await both.servers[0].receive()
