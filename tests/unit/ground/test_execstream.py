"""The host's half of an exec stream, as a value: bytes in, events out."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shed.errors import UsageError
from shed.execstream import ExecStream, Exit, Output, StreamEndedError, request_frame
from shed.guest.protocol import (
    DATA_FRAME,
    EXEC_REQUEST,
    EXIT_CODE,
    RESIZE,
    SIGNAL,
    STDERR,
    STDIN_EOF,
    STDIN_TAKEN,
    STDIN_WINDOW,
    FrameDecoder,
    ProtocolError,
    exec_frame,
)
from support.fuzz import fuzz

FRAMES = [
    exec_frame(DATA_FRAME, b"out"),
    exec_frame(DATA_FRAME),
    exec_frame(0x7E, b"from a later version"),
    exec_frame(STDERR, b"err"),
    exec_frame(STDIN_TAKEN, (7).to_bytes(4, "big")),
    exec_frame(DATA_FRAME, b"more"),
    exec_frame(EXIT_CODE, b'{"code":3}'),
    exec_frame(DATA_FRAME, b"after the end"),
]
EVENTS = [("out", b"out"), ("err", b"err"), ("room", 7), ("out", b"more"), ("exit", 3, 0, None)]


def events(stream: ExecStream, chunks: list[bytes]) -> list[tuple[object, ...]]:
    """Return what `stream` makes of `chunks`; an error is the last event."""
    found: list[tuple[object, ...]] = []
    for chunk in chunks:
        stream.feed(chunk)
        room = stream.room
        while True:
            try:
                event = stream.next()
            except ProtocolError as error:
                return [*found, ("error", str(error))]
            if event is None:
                break
            if isinstance(event, Output):
                found.append(("err" if event.error else "out", event.data))
            elif isinstance(event, Exit):
                found.append(("exit", event.code, event.signal, event.error))
            else:
                found.append(("room", stream.room - room))
                room = stream.room
    return found


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """Return `data` in pieces, none of them empty."""
    ends = sorted({0, len(data), *(min(at, len(data)) for at in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(ends)]


CUTS = st.lists(st.integers(0, 400), max_size=12)


@given(CUTS)
def test_events_do_not_depend_on_how_the_bytes_arrive(cuts: list[int]) -> None:
    """Cut anywhere: the same events, nothing for what is empty or unknown, and nothing after the exit."""
    assert events(ExecStream(), [*cut(b"".join(FRAMES), cuts), b""]) == EVENTS


def test_any_bytes_at_all_give_the_same_events_however_they_arrive() -> None:
    """Hostile ones too: events, then at most one error, and the same when they come in one piece or in many."""
    kinds = st.sampled_from([EXIT_CODE, DATA_FRAME, STDERR, STDIN_TAKEN, 0, 0x7F])
    payloads = st.binary(max_size=40) | st.sampled_from(
        [b'{"code":0}', b'{"code":1,"error":"\\ud800"}', b'{"code":1e999}', b"[" * 5000, b"\0\0\0\1"]
    )
    said = st.lists(st.builds(exec_frame, kinds, payloads) | st.binary(max_size=12), max_size=8).map(b"".join)

    def check(drawn: tuple[bytes, list[int]]) -> None:
        data, cuts = drawn
        whole = events(ExecStream(), [data, b""] if data else [b""])
        assert events(ExecStream(), [*cut(data, cuts), b""]) == whole
        assert whole[-1][0] in ("exit", "error")
        assert [name for name, *_ in whole[:-1] if name in ("exit", "error")] == []

    fuzz(check, st.tuples(said, CUTS))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (exec_frame(EXIT_CODE, b"{}"), "an exit frame without a code"),
        (exec_frame(EXIT_CODE, b""), "not JSON"),
        (exec_frame(EXIT_CODE, b'{"code": "x"}'), "an exit frame without a code"),
        (exec_frame(STDIN_TAKEN, b"\0\0\1"), "a count of 3 bytes"),
        (b"\x05\xff\xff\xff\xff", "frame of 4294967295 bytes"),
    ],
)
def test_bytes_that_make_no_sense(data: bytes, message: str) -> None:
    """One error that says what is wrong; what came before it is still told."""
    assert events(ExecStream(), [exec_frame(DATA_FRAME, b"out")]) == [("out", b"out")]
    *before, (kind, said) = events(ExecStream(), [exec_frame(DATA_FRAME, b"out") + data])
    assert (before, kind) == ([("out", b"out")], "error")
    assert message in str(said)


def test_a_stream_that_ends_early_is_told_from_a_strange_one() -> None:
    """Whoever drives it says "lost" for the one and "not our protocol" for the other."""
    for data in (b"", FRAMES[0], FRAMES[0][:4]):
        stream = ExecStream()
        if data:
            stream.feed(data)
        stream.feed(b"")
        with pytest.raises(StreamEndedError) as ended:
            while stream.next() is not None:
                pass
        with pytest.raises(StreamEndedError) as again:
            stream.next()
        assert again.value is ended.value
    stream = ExecStream(most=2)
    stream.feed(FRAMES[0])
    with pytest.raises(ProtocolError) as strange:
        stream.next()
    assert not isinstance(strange.value, StreamEndedError)


def test_exits() -> None:
    """The quick way for success and the careful way agree; a signal and a failure to start are told."""
    said = {
        b'{"code":0}': (0, 0, None),
        b'{ "code" : 0 }': (0, 0, None),
        b'{"code": 137, "signal": 9}': (137, 9, None),
        b'{"code": 127, "error": "no such file"}': (127, 0, "no such file"),
        b'{"code": 256}': (0, 0, None),
    }
    for payload, expected in said.items():
        assert events(ExecStream(), [exec_frame(EXIT_CODE, payload)]) == [("exit", *expected)]


def test_the_window_of_standard_input() -> None:
    """What is sent takes room, what the command takes gives it back; nobody sends more, or anything after the end."""
    stream = ExecStream()
    assert stream.room == STDIN_WINDOW
    assert stream.stdin(b"") == b""
    assert stream.stdin(memoryview(b"abc")) == exec_frame(DATA_FRAME, b"abc")
    assert stream.room == STDIN_WINDOW - 3
    with pytest.raises(ValueError, match="there is room for"):
        stream.stdin(bytes(STDIN_WINDOW))
    assert len(stream.stdin(bytes(STDIN_WINDOW - 3))) == STDIN_WINDOW - 3 + 5
    assert stream.room == 0
    assert events(stream, [exec_frame(STDIN_TAKEN, (9).to_bytes(4, "big"))]) == [("room", 9)]
    assert stream.stdin_end() == exec_frame(STDIN_EOF)
    assert stream.stdin_end() == b""
    with pytest.raises(ValueError, match="has ended"):
        stream.stdin(b"x")
    assert stream.signal(2) == exec_frame(SIGNAL, b'{"signal":2}')
    assert stream.resize(24, 80) == exec_frame(RESIZE, b'{"rows":24,"cols":80}')


def _request(frame: bytes) -> dict[str, object]:
    decoder = FrameDecoder()
    decoder.feed(frame)
    found = decoder.frame()
    assert found is not None
    assert found[0] == EXEC_REQUEST
    assert decoder.pending() == 0
    value = json.loads(found[1])
    assert isinstance(value, dict)
    return value


def test_requests() -> None:
    """All that can be asked for arrives as JSON, and what was not asked for is not there."""
    assert _request(request_frame(["true"])) == {"cmd": ["true"], "tty": False}
    asked = request_frame(
        ['say "x"\n'],
        fallback=["sh"],
        tty=True,
        size=(24, 80),
        modes=[(53, 0)],
        env=["A=ü"],
        working_dir="/w",
        user="dev",
        home=True,
    )
    assert _request(asked) == {
        "cmd": ['say "x"\n'],
        "fallback": ["sh"],
        "tty": True,
        "rows": 24,
        "cols": 80,
        "modes": [[53, 0]],
        "env": ["A=ü"],
        "working_dir": "/w",
        "user": "dev",
        "home": True,
    }
    with pytest.raises(UsageError, match="NUL"):
        request_frame(["a\0b"])
