"""HTTP as the client speaks it, without I/O: any chunking gives the same answer, and h11 agrees."""

from __future__ import annotations

import itertools
import json

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shed.client.address import parse
from shed.client.http import LONGEST_HEAD, Answer
from shed.errors import ShedError, UnavailableError, UsageError
from support.fuzz import fuzz

ADDRESS = parse("http://127.0.0.1:1")
JSON = b"Content-Type: application/json\r\n"
PLAIN = b"HTTP/1.1 200 OK\r\n" + JSON + b"Content-Length: 9\r\n\r\n" + b'{"a": 1}\n'
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nX: y\r\n\r\n"
TO_THE_END = b"HTTP/1.0 200 OK\r\n\r\nhello world"
AFTER_OTHERS = b"HTTP/1.1 102 Processing\r\nShed-State: starting\r\n\r\nHTTP/1.1 100\r\n\r\n" + PLAIN
Told = tuple[int, bytes] | str


def read(chunks: list[bytes]) -> Told:
    """Return status and body, or the error."""
    answer, body = Answer(ADDRESS), bytearray()
    try:
        for chunk in [*chunks, b""]:
            answer.feed(chunk)
            while (part := answer.next()) is not None:
                body += part
            if answer.complete:
                assert answer.head is not None
                return answer.head.status, bytes(body)
    except ShedError as error:
        return f"{error.code}: {error.message}"
    raise AssertionError("it neither ends nor fails")


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """Return `data` in pieces, none of them empty."""
    ends = sorted({0, len(data), *(min(at, len(data)) for at in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(ends)]


CUTS = st.lists(st.integers(0, 200), max_size=12)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (PLAIN, (200, b'{"a": 1}\n')),
        (CHUNKED, (200, b"hello world")),
        (TO_THE_END, (200, b"hello world")),
        (AFTER_OTHERS, (200, b'{"a": 1}\n')),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
        (b"HTTP/1.1 500\r\nContent-Length: 0\r\n\r\n", (500, b"")),
    ],
    ids=["length", "chunks", "end", "interim", "none", "empty"],
)
@given(CUTS)
def test_an_answer_does_not_depend_on_how_it_arrives(data: bytes, expected: Told, cuts: list[int]) -> None:
    """Of a known length, in chunks, up to the end; after interim answers."""
    assert read(cut(data, cuts)) == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "left without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-", "left without an answer"),
        (b"SSH-2.0-OpenSSH\r\n", "is not a shed server"),
        (b"HTTP/2 200\r\n\r\n", "is not a shed server"),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", "is not a shed server"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "is not a shed server"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "is not a shed server"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "is not a shed server"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "is not a shed server"),
        (b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", "is not a shed server"),
        (b"HTTP/1.1 200 OK\r\nX: y\r\n folded\r\n\r\n", "is not a shed server"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (LONGEST_HEAD // 6), "is not a shed server"),
        (PLAIN[:-1], "lost the connection"),
        (CHUNKED[:-2], "lost the connection"),
        (CHUNKED.replace(b"5;", b"4;"), "lost the connection"),
        (CHUNKED.replace(b"5;", b"-5;"), "lost the connection"),
        (CHUNKED.replace(b"5;", b";"), "lost the connection"),
        (CHUNKED.replace(b"5;", b"5" * 20 + b";"), "lost the connection"),
        (CHUNKED[:50] + b"5;" + b"x" * 5000, "lost the connection"),
    ],
)
@given(CUTS)
def test_what_is_no_answer(data: bytes, message: str, cuts: list[int]) -> None:
    """One error, however it arrives."""
    told = read(cut(data, cuts))
    assert isinstance(told, str)
    assert message in told


def by_h11(data: bytes) -> Told | None:
    """Return what h11 makes of an answer; None when it refuses it."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "x"), ("Connection", "close")]))
    connection.send(h11.EndOfMessage())
    status, body = 0, bytearray()
    try:
        connection.receive_data(data)
        connection.receive_data(b"")
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return status, bytes(body)
            elif event in (h11.PAUSED, h11.NEED_DATA) or isinstance(event, h11.ConnectionClosed):
                return None
    except h11.RemoteProtocolError:
        return None


def test_h11_reads_the_same() -> None:
    """Where both take some bytes for an answer, it is the same one; whatever comes, it ends."""
    piece = st.sampled_from(
        [
            *(b"HTTP/1.1 ", b"200 OK", b"204", b"102 Wait", b"\r\n", b"\n", b"5", b"0", b"hello", b";x", b" ", b"\0"),
            *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"X: y\r\n", b"\r\n\r\n", JSON, PLAIN),
        ]
    )
    begun = st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", CHUNKED[:47], CHUNKED, PLAIN[:-9], PLAIN])
    agreed = []

    def check(drawn: tuple[bytes, list[bytes]]) -> None:
        data = drawn[0] + b"".join(drawn[1])
        ours, theirs = read([data] if data else []), by_h11(data)
        if isinstance(ours, tuple) and theirs is not None:
            assert ours == theirs
            agreed.append(ours)

    fuzz(check, st.tuples(begun, st.lists(piece, max_size=8)), examples=1000)
    assert len(agreed) > 100


def test_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in it can be taken for two lines."""
    monkeypatch.setenv("SHED_TOKEN", "")
    head, _, body = (
        Answer(parse("unix:///x")).request("POST", "/api/sheds", {"name": "ü"}, "a/b").partition(b"\r\n\r\n")
    )
    assert json.loads(body) == {"name": "ü"}
    assert head.decode().split("\r\n")[:2] == ["POST /api/sheds HTTP/1.1", "Host: localhost"]
    assert f"Content-Length: {len(body)}" in head.decode()
    assert b"Content-" not in Answer(parse("unix:///x")).request("GET", "/", None, "a/b")
    for host in ("a\r\nX: y", "ü", "a\0"):
        with pytest.raises(UsageError):
            parse(f"http://{host}:1")


def test_an_error_has_its_status_and_the_servers_version() -> None:
    """The body says what is wrong, whatever its type."""
    answer = Answer(ADDRESS)
    answer.feed(b"HTTP/1.1 404 Not Found\r\nServer: shed/0.0.1\r\nContent-Length: 60\r\n\r\n")
    assert answer.next() == b""
    assert answer.failed
    error = answer.failure(b'{"error": {"code": "SHED_NOT_FOUND", "message": "no"}}')
    assert (error.code, "0.0.1" in (error.hint or "")) == ("SHED_NOT_FOUND", True)
    assert isinstance(answer.failure(b"<html>"), UnavailableError)
