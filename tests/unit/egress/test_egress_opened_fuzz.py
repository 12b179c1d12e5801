"""Any bytes from either side of an opened connection: what gets to the server is whole requests to that host alone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence

import h11
from hypothesis import strategies as st

from shed.egress.orders import Orders
from shed.egress.rules.policy import Profile
from shed.egress.secrets.secret import Secret
from shed.egress.tls.opened import Opened
from support.fuzz import fuzz

NAME = "api.example.com"
SECRET = Secret("API", "placeholder-of-this", "the-value-of-it", (NAME,))
OTHER = Secret("OTHER", "placeholder-of-that", "another-value", ("b.example.com",))
PROFILE = Profile.parse("mine", {"rules": [{"allow": "*"}]})
ORDERS = Orders((PROFILE,), (SECRET, OTHER))

_LINES = st.sampled_from([
    b"GET / HTTP/1.1", b"POST /x?y=placeholder-of-this HTTP/1.1", b"HEAD / HTTP/1.0", b"GET / HTTP/1.1 ",
    b"PUT  / HTTP/1.1",
    b"Host: api.example.com", b"Host: b.example.com", b"Host:api.example.com:443", b"host : api.example.com",
    b"Content-Length: 5", b"Content-Length: 05", b"Content-Length: -1", b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked", b" folded", b"Connection: close", b"Connection: Content-Length",
    b"Upgrade: websocket", b"Connection: Upgrade", b"Expect: 100-continue", b"X: placeholder-of-this",
    b"X: placeholder-of-that", b"Authorization: Basic bWU6cGxhY2Vob2xkZXItb2YtdGhpcw==",
    b"X:\x00", b"X: \xff", b"", b"",
    b"5", b"hello", b"0", b"3;a=b", b"abc", b"fffffffffffffffff", b"Trailer: X",
])  # fmt: skip
_HEAD = b"POST / HTTP/1.1\r\nHost: api.example.com\r\n"
_WHOLE = st.sampled_from([
    _HEAD + b"X: placeholder-of-this\r\nContent-Length: 3\r\n\r\nabc", _HEAD + b"X: placeholder-of-that\r\n\r\n",
    _HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nHost: b\r\n\r\n",
    _HEAD + b"Content-Length: 50\r\n\r\nhalf",
    _HEAD[5:].replace(b"/", b"GET /", 1) + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\nbytes",
])  # fmt: skip
_GUEST = _WHOLE | st.lists(_LINES | st.binary(max_size=12), max_size=30).map(b"\r\n".join) | st.binary(max_size=200)
_SERVER = st.sampled_from([
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"HTTP/1.1 204 No\r\n\r\n", b"HTTP/1.1 100 Go on\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nrest",
    b"HTTP/1.1 101 Switch\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nbytes", b"nonsense\r\n\r\n", b"",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nX: the-value-of-it\r\n\r\nthe-v", b"alue-of-it", b"\x00",
])  # fmt: skip


class Script:
    """A side of the connection that says what it was given, and keeps what it is told."""

    def __init__(self, parts: Sequence[bytes]) -> None:
        self.sock = socket.socket()
        self.sock.close()
        self._parts = list(parts)
        self.told = b""

    async def receive(self) -> bytes:
        """Return the next part."""
        await asyncio.sleep(0)
        while self._parts:
            if part := self._parts.pop(0):
                return part
        return b""

    async def send(self, data: bytes) -> None:
        """Keep data."""
        await asyncio.sleep(0)
        self.told += data

    async def finish(self) -> None:
        """Nothing follows."""


async def _talk(guest: Script, servers: list[Script], answers: list[bytes]) -> list[dict[str, object]]:
    told: list[dict[str, object]] = []

    async def connect() -> Script:
        servers.append(Script(answers))
        return servers[-1]

    opening = ORDERS.opening(NAME, 443)
    assert opening is not None
    async with asyncio.timeout(20):
        with contextlib.suppress(OSError, h11.ProtocolError):
            await Opened(NAME, 443, guest, connect, lambda: (ORDERS, opening), told.append, "hint").run()
    assert len(asyncio.all_tasks()) == 1, "a task was left behind"
    return told


def test_no_bytes_smuggle_a_request() -> None:
    """Nor have a value be sent back in the clear, nor end the relay by a bug."""

    def check(drawn: tuple[list[bytes], list[bytes]]) -> None:
        parts, answers = drawn
        guest, servers = Script(parts), list[Script]()
        told = asyncio.run(_talk(guest, servers, answers))
        assert b"the-value-of-it" not in guest.told.partition(b"HTTP/1.1 101 ")[0]  # then the pieces are passed at once
        assert "the-value-of-it" not in repr(told)
        asked = [entry for entry in told if entry["allowed"]]
        got = 0
        for server in servers:
            assert b"another-value" not in server.told
            assert b"placeholder-of-that" not in server.told.partition(b"\r\n\r\n")[0]
            reader = h11.Connection(h11.SERVER)
            reader.receive_data(server.told)
            while isinstance(event := reader.next_event(), h11.Event):
                if isinstance(event, h11.Request):
                    got += 1
                    assert [value for name, value in event.headers if name == b"host"] == [NAME.encode()]
                if isinstance(event, h11.EndOfMessage):
                    if reader.their_state not in {h11.DONE, h11.MUST_CLOSE}:
                        break  # what follows may be a WebSocket's
                    reader.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                    reader.send(h11.EndOfMessage())
                    if reader.our_state is not h11.DONE:
                        break
                    reader.start_next_cycle()
        assert got <= len(asked)

    fuzz(check, st.tuples(st.lists(_GUEST, min_size=1, max_size=3), st.lists(_SERVER, max_size=4)), examples=400)
