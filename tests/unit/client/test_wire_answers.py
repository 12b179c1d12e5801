"""What the server's words become: events, errors, objects."""

from __future__ import annotations

import json
import os
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shed.client.failures import error_of
from shed.client.http import EventParser
from shed.client.messages import complete_shed, quoted
from shed.errors import BackendError, ConflictError, NotFoundError, ShedError, UnavailableError, UsageError
from shed.execstream import quote
from shed.version import VERSION

STREAM = (
    b'event: progress\r\ndata: {"a":\r\ndata: 1}\r\n\r\n:\n\nid: 7\nevent:complete\ndata:x\xc3\xa9\n\ndata: '
    b"last\n\nevent: cut\ndata: never"
)
EVENTS = [("progress", '{"a":\n1}'), ("complete", "xé"), ("message", "last")]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12).map(sorted))
def test_events_do_not_depend_on_how_they_arrive(cuts: list[int]) -> None:
    """Cut anywhere, inside a character or a line end, the stream holds the same events; comments and a cut-off event
    are none.
    """
    chunks = [STREAM[a:b] for a, b in zip([0, *cuts], [*cuts, len(STREAM)], strict=True)]
    parser = EventParser()
    assert [event for chunk in chunks for event in parser.feed(chunk)] == EVENTS


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "SHED_NOT_FOUND", NotFoundError),
        (409, "SHED_ALREADY_EXISTS", ConflictError),
        (400, "INVALID_SHED_NAME", UsageError),
        (500, "BACKEND_ERROR", BackendError),
        (0, "INVALID_SHED_NAME", UsageError),
        (0, "CONFLICT", ConflictError),
        (0, "WHATEVER", ShedError),
    ],
)
def test_errors_keep_their_kind(status: int, code: str, kind: type[ShedError]) -> None:
    """The status tells the class, the code is passed on, and the hint with it."""
    error = error_of(status, json.dumps({"error": {"code": code, "message": "no", "hint": "do"}}).encode())
    assert (type(error), error.code, error.message, error.hint) == (kind, code, "no", "do")


def test_an_error_from_another_version_says_so() -> None:
    """A request that an older server does not know must not leave the user guessing."""
    body = b'{"error": {"code": "NOT_FOUND", "message": "no"}}'
    assert "server is version 0.1.0" in (error_of(404, body, server="shed/0.1.0").hint or "")
    assert error_of(404, body, server=f"shed/{VERSION}").hint is None
    assert error_of(404, body, server="nginx").hint is None


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": "x"}', b'{"error": {"message": 1}}', b"\xff"])
def test_an_answer_that_is_no_error_object_is_still_an_error(body: bytes) -> None:
    """Whatever stands between us and the server, there is one sentence."""
    assert isinstance(error_of(502, body), UnavailableError)


def test_a_shed_is_read_with_suspicion() -> None:
    """Members of the wrong type count as absent, and unknown ones are left out."""
    shed = complete_shed({"name": "dev", "cpus": "2", "memory_mb": True, "pid": 7, "new": 1, "timings": None})
    assert (shed["name"], shed["cpus"], shed["memory_mb"], shed["pid"], shed["timings"]) == ("dev", 0, 0, 7, {})
    assert "new" not in shed


def test_what_is_put_into_a_target_is_quoted() -> None:
    """As the standard library does it; a name of any bytes survives."""
    for text in ("base", "host:5000/a/b:v1@sha256:ab", "a b&c=d?#%", "ü", b"\xff".decode(errors="surrogateescape")):
        assert quoted(text) == urllib.parse.quote(os.fsencode(text), safe="")


@given(st.text())
def test_words_are_quoted_as_json(text: str) -> None:
    """Quotes, newlines, and characters outside the BMP survive."""
    assert json.loads(quote(text)) == text


def test_bytes_that_are_not_utf8_survive_quoting() -> None:
    """An argument of any bytes reaches the guest: as lone surrogates, which it turns back."""
    word = b"\xff\x80/a".decode(errors="surrogateescape")
    assert json.loads(quote(word)).encode(errors="surrogateescape") == b"\xff\x80/a"
