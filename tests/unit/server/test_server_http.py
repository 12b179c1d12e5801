"""One HTTP connection, without a server around it: time limits, odd methods, bugs in a handler."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest

from shed.api.access import Right
from shed.server import http
from shed.server.caller import Caller
from shed.server.http import Answer, Events, HttpConnection, Reply, Request

OWNER = Caller("user", "ann", Right.ADMIN)


async def hello(request: Request) -> Reply:
    return Answer(
        200,
        f"{request.method} {'/'.join(request.path)} {sorted(request.query.items())} {request.body!r}".encode(),
        "text/plain",
    )


def converse(
    *parts: bytes, handle: Callable[[Request], Awaitable[Reply]] = hello, pause: float = 0.0, end: bool = True
) -> bytes:
    """Send the parts, with a pause between them, and return everything that comes back."""

    async def main() -> bytes:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        connection = HttpConnection(*await asyncio.open_unix_connection(sock=theirs), handle, lambda headers: OWNER)
        serving = asyncio.create_task(connection.serve())
        for part in parts:
            writer.write(part)
            await asyncio.sleep(pause)
        if end:
            writer.write_eof()
        async with asyncio.timeout(60):
            answer = await reader.read()
            await serving
        writer.close()
        await writer.wait_closed()
        return answer

    return asyncio.run(main())


def test_the_path_and_the_query_are_decoded() -> None:
    """Segments first, then their escapes: an escaped slash does not divide.  What is empty is there, too."""
    answer = converse(b"GET /a%2Fb/c?x=1&y=%C3%BC&z= HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.endswith("GET a/b/c [('x', '1'), ('y', 'ü'), ('z', '')] b''".encode())


@pytest.mark.parametrize("target", [b"http://[", b"*", b"a/b"])
def test_a_target_that_is_no_path_is_refused(target: bytes) -> None:
    """With a proper answer."""
    assert converse(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_a_body_may_come_in_chunks_and_after_a_continue() -> None:
    """As curl sends long ones."""
    head = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    answer = converse(head, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", pause=0.05)
    assert answer.startswith(b"HTTP/1.1 100 ")
    assert answer.endswith(b"b'abcde'")


def test_a_head_request_has_no_body() -> None:
    """And the connection goes on."""
    one = b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n"
    answer = converse(one + one)
    assert answer.count(b"HTTP/1.1 200 ") == 2
    assert b"HEAD x" not in answer


@pytest.mark.parametrize("rest", [b"Content-Length: 3\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nx\r\n"])
def test_a_head_request_whose_body_is_wrong(rest: bytes) -> None:
    """Is refused with a head alone, as an answer to it must be."""
    answer = converse(b"HEAD /x HTTP/1.1\r\nHost: a\r\n" + rest)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"\r\n\r\n")


def test_nonsense_behind_a_head_request() -> None:
    """Is refused by an answer of its own, which is whole."""
    answer = converse(b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n", b"\0")
    assert answer.count(b"HTTP/1.1 ") == 2
    assert answer.endswith(b"}}\n")


@pytest.mark.parametrize("part", [b"GET /x HTT", b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab"])
def test_half_a_request_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, part: bytes) -> None:
    """Neither half a head nor half a body."""
    monkeypatch.setattr(http, "REQUEST_TIMEOUT", 0.1)
    assert converse(part, end=False).startswith(b"HTTP/1.1 408 ")


def test_a_silent_client_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its request, and without one."""
    monkeypatch.setattr(http, "IDLE_TIMEOUT", 0.1)
    assert converse(end=False) == b""
    monkeypatch.setattr(http, "IDLE_TIMEOUT", 1.0)  # it may take a while to be heard
    assert converse(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n", end=False).count(b"HTTP/1.1") == 1


async def test_events_stop_when_the_client_leaves() -> None:
    """The generator is closed, not drained."""
    closed = []

    async def endless(request: Request) -> Reply:
        async def blocks() -> AsyncGenerator[bytes, None]:
            try:
                while True:
                    yield b"event: x\ndata: {}\n\n"
                    await asyncio.sleep(0)
            finally:
                closed.append(True)

        return Events(blocks())

    ours, theirs = socket.socketpair()
    connection = HttpConnection(*await asyncio.open_unix_connection(sock=theirs), endless, lambda headers: OWNER)
    serving = asyncio.create_task(connection.serve())
    ours.setblocking(False)
    await asyncio.get_running_loop().sock_sendall(ours, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert await asyncio.get_running_loop().sock_recv(ours, 1000)
    ours.close()
    async with asyncio.timeout(60):
        await serving
    assert closed
