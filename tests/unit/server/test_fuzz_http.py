"""Whatever a client sends, the HTTP connection answers properly or hangs up: nothing else comes out of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from hypothesis import strategies as st

from shed.api.access import Right
from shed.api.decoding import decode
from shed.api.endpoints import CREATE_SHED, SHED_LOGS
from shed.errors import UsageError
from shed.server.caller import Caller
from shed.server.http import Answer, HttpConnection, Reply, Request
from support.fuzz import fuzz

_HEADERS = [
    "Host: a",
    "Content-Length: 3",
    "Content-Length: -1",
    "Transfer-Encoding: chunked",
    "Expect: 100-continue",
    "Connection: close",
    "Upgrade: shed-exec",
    "Prefer: processing",
    "Accept: text/event-stream",
    "X: \x00",
    "X:\ud800",
    "Content-Length: " + "9" * 5000,
]
_TARGETS = [
    "/",
    "/api/sheds/x/logs?tail=" + "9" * 5000,
    "/%ff/%ud800",
    "/a?b&c=%",
    "*",
    "//",
    "http://a/",
    "/\u20ac",
    "/" + "a/" * 3000,
    "/?" + "a&" * 500,
]

OWNER = Caller("user", "tester", Right.ADMIN)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


async def _echo(request: Request) -> Reply:
    with contextlib.suppress(UsageError):  # what is refused is answered above this layer
        decode(SHED_LOGS, {"name": "x"}, request.query, request.body)
        decode(CREATE_SHED, {}, request.query, request.body)
    return Answer(200, repr(request.path).encode())


def test_any_bytes_at_all() -> None:
    """Heads, bodies and pieces of them: each answer is one of HTTP/1.1, and the connection comes to its end."""
    methods = st.sampled_from(["GET", "POST", "HEAD", "BREW", "G T", ""])
    lines = st.builds(
        "{} {} HTTP/{}".format, methods, st.sampled_from(_TARGETS), st.sampled_from(["1.1", "1.0", "2", "x"])
    )
    heads = st.builds(
        lambda line, headers: "\r\n".join([line, *headers]) + "\r\n\r\n",
        lines,
        st.lists(st.sampled_from(_HEADERS), max_size=5),
    )
    pieces = (
        heads.map(_encoded)
        | st.binary(max_size=40)
        | st.sampled_from([b"abc", b"3\r\nabc\r\n0\r\n\r\n", b'{"a":' * 500, b"\r\n"])
    )

    def check(sent: bytes) -> None:
        answer = asyncio.run(_converse(sent))
        assert not answer or answer.startswith(b"HTTP/1.1 ")
        assert b" 500 " not in answer.split(b"\r\n")[0]

    fuzz(check, st.lists(pieces, max_size=6).map(b"".join), examples=200)


async def _converse(sent: bytes) -> bytes:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    escaped: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: escaped.append(context))
    connection = HttpConnection(*await asyncio.open_unix_connection(sock=theirs), _echo, lambda _: OWNER)
    serving = asyncio.create_task(connection.serve())
    with contextlib.suppress(ConnectionError):
        writer.write(sent)
        writer.write_eof()
    answer = b""
    async with asyncio.timeout(60):
        with contextlib.suppress(ConnectionError):
            answer = await reader.read()
        await serving
    writer.close()
    assert not escaped
    return answer
