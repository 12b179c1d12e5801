"""What a guest says is taken apart without trust: one error for whatever is wrong, soon, and in little memory."""

from __future__ import annotations

import json

import pytest
from hypothesis import strategies as st

from shed import untrusted
from shed.untrusted import load_exit, load_object, number, told
from support.fuzz import fuzz

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"\xff{}", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        ('{"a":1}'.encode("utf-16"), "not JSON"),
        (b'{"a":NaN}', "NaN is not a number"),
        (b'{"a":1e999}', "too large"),
        (b'{"a":' + b"9" * 5000 + b"}", "5000 digits"),
        (b'{"a":' + b"9" * 19 + b"}", "19 digits"),
        (b'{"a":"\\ud800"}', "surrogates"),
        (b'{"\\udfff":1}', "surrogates"),
        (b'{"a":"\xed\xa0\x80"}', "not JSON"),
        (b'{"a":' + b"[" * 9 + b"]" * 9 + b"}", "deep"),
        (b'{"a":' + b"[" * 16000 + b"]" * 16000 + b"}", "deep"),
        (b'{"a":[' + b",".join([b"[]"] * 5_000_000) + b"]}", "32768 is the most"),
    ],
    ids=range(15),
)
def test_json_that_would_hurt_is_refused(text: bytes, why: str) -> None:
    """Size, depth, digits, infinity, encodings, surrogates: a `ValueError` that is short and says which."""
    with pytest.raises(ValueError, match=why) as caught:
        load_object(text)
    assert len(str(caught.value)) < 400


def test_honest_json_is_taken() -> None:
    """Numbers of 64 bits, text of all planes, some depth."""
    value = {"a": [-(10**18 - 1), 1.5, "ü😀", {"b": [[[[None, True]]]]}]}
    assert load_object(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{"code":300}', (44, 0, None)),
        (b'{"code":143,"signal":15}', (143, 15, None)),
        (b'{"code":1,"signal":"x","error":["y"]}', (1, 0, None)),
        (b'{"code":127,"error":"a\\u001b[2Jb"}', (127, 0, "a\\x1b[2Jb")),
    ],
)
def test_an_exit_frame(payload: bytes, expected: tuple[int, int, str | None]) -> None:
    """The code counts; what else there is, if it is what it should be."""
    assert load_exit(payload) == expected


@pytest.mark.parametrize(
    "payload", [b"{}", b'{"code":"1"}', b'{"code":true}', b'{"code":1.5}', b'{"code":' + b"1" * 5000 + b"}", b"5"]
)
def test_an_exit_frame_without_a_code(payload: bytes) -> None:
    """Is an error, whatever is there instead."""
    with pytest.raises(ValueError, match=r"code|digits|object"):
        load_exit(payload)


@pytest.mark.parametrize("text", ["", "x", "-1", "1.0", " 1", "１", "²", "65536", "0", "9" * 19, "9" * 5000])
def test_what_is_no_port(text: str) -> None:
    """Other digits than ASCII's, and more of them than are converted, are no number."""
    assert number(text, 1, 65535) is None


def test_numbers_within_their_limits() -> None:
    """Both limits are in."""
    assert [number(text, 1, 65535) for text in ("1", "0001", "65535")] == [1, 1, 65535]


def test_text_is_one_short_line() -> None:
    """Controls are shown, what is long ends in an ellipsis, and what is no text is written out."""
    assert told("fine") == "fine"
    assert told("a\x1b]0;x\x07\nb\ud800") == r"a\x1b]0;x\x07\nb\ud800"
    assert len(told("\x1b" * 10_000)) == untrusted.MOST_TEXT
    assert told("x" * 301).endswith("x…")
    assert told({"a": 1}) == "{'a': 1}"


@pytest.mark.slow
def test_any_bytes_as_json() -> None:
    """A value or a `ValueError`, and a value can be said again."""

    def check(data: bytes) -> None:
        try:
            found = load_object(data)
        except ValueError:
            return
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
        told(found)

    fuzz(check, st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()))


@pytest.mark.slow
def test_any_bytes_as_an_exit_frame() -> None:
    """A code of a byte, or a `ValueError`."""

    def check(data: bytes) -> None:
        try:
            code, signal, error = load_exit(data)
        except ValueError:
            return
        assert 0 <= code <= 255
        assert 0 <= signal <= 64
        assert error is None or (error.isprintable() and len(error) <= untrusted.MOST_TEXT)

    members = st.fixed_dictionaries({}, optional={"code": values, "signal": values, "error": values})
    fuzz(check, st.binary(max_size=100) | members.map(lambda value: json.dumps(value).encode()))
