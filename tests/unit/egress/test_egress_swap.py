"""Placeholders and values: what is swapped where, and what is taken out of answers again."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import parse_qsl, quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shed.egress.secrets.secret import Secret
from shed.egress.tls.swap import Mask, Misplaced, Swap, unswapped

VALUE, HERE = "v@lue/of+it=&%", "placeholder-of-this"
SECRET = Secret("HERE", HERE, VALUE, ("a.example.com",))
OTHER = Secret("OTHER", "placeholder-of-that", "another-value", ("b.example.com",))


def swapped(*headers: tuple[bytes, bytes], mine: tuple[Secret, ...] = (SECRET,)) -> list[tuple[bytes, bytes]]:
    """Return headers as they are sent."""
    return Swap(mine, [OTHER]).headers(headers)


@pytest.mark.parametrize(("value", "expected"), [
    ("Bearer placeholder-of-this", f"Bearer {VALUE}"),
    ("placeholder-of-thisplaceholder-of-this", VALUE * 2),
    ("placeholder-of-thi", "placeholder-of-thi"),
    ("Placeholder-of-this", "Placeholder-of-this"),
    ("", ""),
])  # fmt: skip
def test_in_a_header(value: str, expected: str) -> None:
    """Wherever it is in the header's text, as it is written."""
    assert swapped((b"X-Key", value.encode())) == [(b"X-Key", expected.encode())]


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
@pytest.mark.parametrize("plain", [f"me:{HERE}", f"{HERE}:", f"{HERE}:{HERE}", f"{HERE}"])
def test_in_basic_authorization(scheme: str, plain: str) -> None:
    """As the name or as the password."""
    said = f"{scheme} {base64.b64encode(plain.encode()).decode()}".encode()
    (_, sent), = swapped((b"authorization", said))  # fmt: skip
    assert base64.b64decode(sent.removeprefix(b"Basic ")).decode() == plain.replace(HERE, VALUE)
    foreign = base64.b64encode(b"x:placeholder-of-that").decode()
    with pytest.raises(Misplaced, match="the secret OTHER is not for this request"):
        swapped((b"Authorization", f"{scheme} {foreign}".encode()))


@pytest.mark.parametrize(
    "said", [b"Basic", b"Basic ", b"Basic !!!", b"Basic bWU6eA==", b"Basic bWU6eA== x", b"Basic \xff"]
)
def test_other_basic_authorization_stays_as_it_is(said: bytes) -> None:
    """Nonsense, too: the server will say so."""
    assert swapped((b"Authorization", said)) == [(b"Authorization", said)]


def test_of_a_foreign_secret_in_a_header() -> None:
    """Refused, with its name and without its value."""
    for name in (b"Cookie", b"X", b"Authorization"):
        with pytest.raises(Misplaced) as caught:
            swapped((name, b"a placeholder-of-that b"))
        assert "another-value" not in str(caught.value)


def test_in_a_query() -> None:
    """In names and values, however they are escaped; other members stay as they are, to the byte."""
    swap = Swap([SECRET], [OTHER])
    untouched = b"a=b+c%20d&&%zz=%&x=%C3%A9"
    assert swap.query(untouched) == untouched
    for spelled in (HERE, "%70laceholder-of-this", "".join(f"%{ord(letter):02x}" for letter in HERE)):
        sent = swap.query(f"q=1&key=a+{spelled}&z".encode())
        assert sent == f"q=1&key={quote(f'a {VALUE}', safe='')}&z".encode()
        with pytest.raises(Misplaced):
            swap.query(b"%70laceholder-of-that")
    assert b"%2" in swap.query(HERE.encode() + b"=1")


@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=5), st.integers(0, 5))
def test_a_query_means_the_same_but_for_the_placeholder(members: list[tuple[str, str]], at: int) -> None:
    """Whatever is around it."""
    members = [(f"n{name}", f"v{value}") for name, value in members]
    members.insert(at, ("key", f"<{HERE}>"))
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in members)
    sent = parse_qsl(Swap([SECRET], []).query(query.encode()).decode(), strict_parsing=True)
    assert sent == [(name, value.replace(HERE, VALUE)) for name, value in members]


def test_a_header_that_the_relay_sets() -> None:
    """It replaces what is there under that name, however often and however it is spelled; the first secret wins."""
    fixed = Secret("FIXED", "placeholder-of-fixed", "fixed-value", ("a.example.com",), ("X-Key", "key {}"))
    second = Secret("SECOND", "placeholder-of-second", "second-value", ("a.example.com",), ("x-key", "{}"))
    mine = (fixed, second)
    said = ((b"X-KEY", b"a"), (b"A", b"b"), (b"x-key", b"placeholder-of-fixed"))
    assert swapped(*said, mine=mine) == [(b"A", b"b"), (b"X-Key", b"key fixed-value")]
    with pytest.raises(Misplaced, match="X-Key alone"):
        swapped((b"A", b"placeholder-of-fixed"), mine=mine)
    with pytest.raises(Misplaced, match="X-Key alone"):
        Swap(mine, []).query(b"a=placeholder-of-fixed")


def test_what_was_used_is_known() -> None:
    """By name, and in which spellings it was sent, so that answers can be searched for them."""
    swap = Swap([SECRET], [])
    swap.headers([(b"Authorization", b"Basic " + base64.b64encode(f"me:{HERE}".encode()))])
    assert list(swap.used) == ["HERE"]
    assert base64.b64encode(f"me:{VALUE}".encode()) in swap.sent
    assert quote(VALUE, safe="").encode() in swap.sent


def test_headers_of_answers_have_placeholders() -> None:
    """So that a client that follows one gets the value there again, and nowhere else."""
    for spelling in (VALUE, quote(VALUE, safe="")):
        assert unswapped(f"https://a.example.com/?key={spelling}".encode(), [SECRET]).endswith(HERE.encode())


@given(st.data())
def test_a_mask_is_the_same_however_a_stream_is_cut(data: Any) -> None:
    """It is as long as what came, and has no value."""
    text = st.text(st.sampled_from("ab +="), min_size=1, max_size=5).map(str.encode)
    values = data.draw(st.lists(text, min_size=1, max_size=3))
    parts = data.draw(st.lists(st.one_of(st.sampled_from(values), st.binary(max_size=4)), max_size=12))
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    mask = Mask(values)
    got = b"".join(mask.feed(stream[a:b]) for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)) + mask.end()
    assert len(got) == len(stream)
    assert not any(value in got for value in values)
    assert all(a in (b, ord("*")) for a, b in zip(got, stream, strict=True))


def test_a_mask_holds_back_what_may_be_a_value() -> None:
    """Not the end of an event of a stream: no value has a line's end.  Nor more than a value is long."""
    mask = Mask([b"secret-value"])
    assert mask.feed(b"data: secret\n\n") == b"data: secret\n\n"
    assert mask.feed(b"data:\nsecret-") == b"data:\n"
    assert mask.feed(b"val") == b""
    assert mask.feed(b"ue\n") == b"************\n"
    assert mask.feed(b"x" * 20) == b"x" * 9
    assert mask.end() == b"x" * 11
    assert Mask([]).feed(b"anything") == b"anything"


@given(st.text(st.sampled_from("secr-value \n"), max_size=11).map(str.encode))
def test_what_is_held_back_tells_nothing_of_the_value(guess: bytes) -> None:
    """A beginning of the value is held back as any other text is."""
    one, other = Mask([b"secret-value"]), Mask([b"XXXXXXXXXXXX"])
    assert (one.feed(guess), one.held) == (other.feed(guess), other.held)
