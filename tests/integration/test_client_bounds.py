"""A server that stalls, or sends without end: each request of the client ends, in one clear error, with little memory
taken.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from shed.client import http, streams, transport
from shed.client.address import parse
from shed.client.aio import api
from shed.client.aio.client import AsyncClient
from shed.client.sync.api import Api
from shed.client.sync.requests import request
from shed.errors import UnavailableError
from support.servers.scripted_server import Conversation, Script, ScriptedServer

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
CHUNKED = HEAD.replace(b"Content-Length: 1000", b"Transfer-Encoding: chunked")
Say = Callable[[Conversation], None]


def stalling(*parts: bytes) -> Say:
    """Return a script that says these, and then nothing until the client leaves."""

    def script(talk: Conversation) -> None:
        for part in parts:
            talk.socket.sendall(part)
        talk.socket.recv(1)

    return script


def endless(head: bytes, more: bytes) -> Say:
    """Return a script that says `more` until the client leaves."""

    def script(talk: Conversation) -> None:
        try:
            talk.socket.sendall(head)
            for _ in itertools.repeat(None):
                talk.socket.sendall(more)
        except (BrokenPipeError, ConnectionResetError):
            pass

    return script


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times that a test can wait for."""
    monkeypatch.setattr(http, "TIMEOUT", 0.2)
    monkeypatch.setattr(transport, "ANSWER_TIMEOUT", 0.2)
    monkeypatch.setattr(api, "ANSWER_TIMEOUT", 0.2)
    monkeypatch.setattr(streams, "ANSWER_TIMEOUT", 0.2)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes that a test can send."""
    monkeypatch.setattr(http, "LONGEST_BODY", 1 << 20)
    monkeypatch.setattr(http, "LONGEST_EVENT", 1 << 20)


def both(url: str) -> tuple[UnavailableError, UnavailableError]:
    """Return what the two clients say of a server."""
    with pytest.raises(UnavailableError) as plain:
        request(parse(url), "GET", "/api/info", timeout=http.TIMEOUT)

    async def ask() -> None:
        with pytest.raises(UnavailableError) as found:
            await AsyncClient(url).info()
        told.append(found.value)

    told = [plain.value]
    asyncio.run(asyncio.wait_for(ask(), 60))
    return told[0], told[1]


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    "script",
    [
        stalling(),
        stalling(b"HTTP/1.1 200 OK\r\nContent-"),
        stalling(HEAD, b"{"),
        stalling(HEAD.replace(b"200", b"500"), b"{"),
        endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["silent", "in the head", "in the body", "in an error", "interim"],
)
def test_a_server_that_stalls(serve: Callable[[Script], ScriptedServer], script: Say) -> None:
    """Wherever it does, or when it only says that it is about to answer: both clients have the same rule, and say the
    same.
    """
    with serve(script) as server:
        for error in both(server.url):
            assert (error.code, "did not answer within" in error.message) == ("TIMEOUT", True)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("script", "words"),
    [
        (endless(b"HTTP/1.1 200 OK\r\n", b"X: " + b"x" * 1000 + b"\r\n"), "is not a shed server"),
        (endless(HEAD.replace(b"1000", b"9" * 15), b" " * 65536), "is too long"),
        (endless(CHUNKED, b"1000\r\n" + b" " * 4096 + b"\r\n"), "is too long"),
    ],
    ids=["head", "body", "chunks"],
)
def test_an_answer_without_end(serve: Callable[[Script], ScriptedServer], script: Say, words: str) -> None:
    """It is not kept."""
    with serve(script) as server:
        for error in both(server.url):
            assert words in error.message


@pytest.mark.parametrize("body", [b"[" * 100_000, b"{" * 10, b"<html>"], ids=["deep", "broken", "page"])
def test_what_is_no_answer(serve: Callable[[Script], ScriptedServer], body: bytes) -> None:
    """JSON that is too deep or none, and a web page, good or bad: it is not a shed server."""
    answers = [(200, "application/json"), (500, "application/json"), (200, "text/html"), (302, "text/html")]
    for answer in answers:
        with serve(partial(_answer, body, *answer)) as server:
            for error in both(server.url):
                assert "shed server" in error.message
                assert error.hint == "check the address"
        Path(server.url.removeprefix("unix://")).unlink()


def _answer(body: bytes, status: int, kind: str, talk: Conversation) -> None:
    talk.answer(status, body, kind=kind)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("line", [b"data: x\n", b"x"], ids=["lines", "line"])
def test_an_event_without_end(serve: Callable[[Script], ScriptedServer], line: bytes) -> None:
    """It is not kept."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    with (
        serve(endless(head, line * 4096)) as server,
        pytest.raises(UnavailableError, match="an event of more than 1 MiB"),
    ):
        Api(server.url).start("dev")


@pytest.mark.usefixtures("hurried")
def test_a_refusal_that_stalls(serve: Callable[[Script], ScriptedServer]) -> None:
    """Where a connection was to become a stream, too."""
    with serve(stalling(HEAD.replace(b"200", b"404"), b"{")) as server:
        with pytest.raises(UnavailableError) as plain:
            transport.upgrade(parse(server.url), "POST", "/api/sheds/dev/exec", "shed-exec")
        with pytest.raises(UnavailableError) as other:
            asyncio.run(streams.upgrade(parse(server.url), "POST", "/api/sheds/dev/exec", "shed-exec"))
    assert plain.value.code == other.value.code == "TIMEOUT"


@pytest.mark.usefixtures("hurried")
def test_promises_without_end(serve: Callable[[Script], ScriptedServer]) -> None:
    """A server that says again and again that it works on it is none."""
    with serve(endless(b"", b"HTTP/1.1 102 Processing\r\nShed-State: starting\r\n\r\n")) as server:
        with pytest.raises(UnavailableError, match="not a shed server"):
            transport.upgrade(parse(server.url), "POST", "/api/sheds/dev/exec", "shed-exec")
        with pytest.raises(UnavailableError, match="not a shed server"):
            asyncio.run(streams.upgrade(parse(server.url), "POST", "/api/sheds/dev/exec", "shed-exec"))


class Web(BaseHTTPRequestHandler):
    """A web server that leads elsewhere, and counts who follows."""

    followed = 0

    def do_GET(self) -> None:
        """Redirect, or count."""
        if self.path == "/elsewhere":
            Web.followed += 1
        self.send_response(302)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name there
        """Say nothing."""


def test_a_redirect_is_not_followed() -> None:
    """What is sent to one server, a token among it, does not go to another."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Web) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        try:
            for error in both(f"http://127.0.0.1:{web.server_address[1]}"):
                assert "status 302, is not a shed server" in error.message
        finally:
            web.shutdown()
            thread.join()
    assert not Web.followed
