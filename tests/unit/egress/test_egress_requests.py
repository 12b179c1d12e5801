"""One request to a host for which TLS is opened: what is refused, and what is sent."""

from __future__ import annotations

from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shed.egress.orders import Opening, Orders
from shed.egress.rules.policy import Profile
from shed.egress.secrets.secret import Secret
from shed.egress.tls.request import Ready, Refused, prepare
from shed.errors import UsageError

SECRET = {"name": "API", "placeholder": "placeholder-of-this", "value": "the-value", "hosts": ["api.example.com"]}
NAME = "api.example.com"


def orders(*rules: dict[str, Any], **changes: Any) -> Orders:
    """Return orders with one secret, and `rules`, or the rule that allows everything."""
    profile = Profile.parse("mine", {"rules": list(rules) or [{"allow": "*"}]})
    return Orders((profile,), (Secret.parse({**SECRET, **changes}),))


def request(method: str = "GET", target: str = "/", *headers: tuple[str, str], version: str = "1.1") -> h11.Request:
    """Return a request as it comes from the wire."""
    head = "".join(f"{name}: {value}\r\n" for name, value in headers or (("Host", NAME),))
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(f"{method} {target} HTTP/{version}\r\n{head}\r\n".encode("latin-1"))
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    return event


def sent(made: h11.Request, known: Orders | None = None, port: int = 443) -> Ready:
    """Return a request as it is sent.  Raises `Refused`."""
    known = known or orders()
    opening = known.opening(NAME, port)
    assert opening is not None
    return prepare(made, NAME, port, known, opening)


@pytest.mark.parametrize(("host", "port", "fits"), [
    ("api.example.com", 443, True), ("api.example.com:443", 443, True), ("API.Example.com.", 443, True),
    ("api.example.com:8443", 8443, True), ("api.example.com", 8443, False), ("api.example.com:8443", 443, False),
    ("api.example.com:", 443, False), ("api.example.com:0443", 443, False), ("api.example.com:443:443", 443, False),
    ("evil.example", 443, False), ("api.example.com, evil.example", 443, False), ("me@api.example.com", 443, False),
    ("api.example.com/", 443, False), ("api.example.com evil.example", 443, False), ("[::1]", 443, False),
    ("93.184.216.34", 443, False), ("\u0430pi.example.com".encode().decode("latin-1"), 443, False),
    ("api.example.com..", 443, False), ("", 443, False),
])  # fmt: skip
def test_the_host_is_the_connected_one(host: str, port: int, fits: bool) -> None:
    """By name and port; it is sent in its normal spelling."""
    made = request("GET", "/", ("Host", host))
    if not fits:
        with pytest.raises(Refused, match="does not name"):
            sent(made, port=port)
    else:
        expected = NAME if port == 443 else f"{NAME}:{port}"
        assert dict(sent(made, port=port).head.headers)[b"host"] == expected.encode()


def test_a_client_of_http_1_0_needs_no_host() -> None:
    """The server gets one all the same."""
    ready = sent(request("GET", "/", ("A", "b"), version="1.0"))
    assert dict(ready.head.headers)[b"host"] == NAME.encode()


@pytest.mark.parametrize(("method", "target"), [
    ("CONNECT", "api.example.com:443"), ("TRACE", "/"), ("OPTIONS", "*"), ("GET", "https://api.example.com/"),
    ("GET", "http://169.254.169.254/"), ("GET", "x"), ("GET", "?x"),
])  # fmt: skip
def test_targets_that_are_no_paths_and_methods_for_proxies_are_refused(method: str, target: str) -> None:
    """Whomever they are for."""
    with pytest.raises(Refused):
        sent(request(method, target))


@pytest.mark.parametrize("headers", [
    [("Content-Length", "3"), ("Transfer-Encoding", "chunked")],
    [("transfer-encoding", "CHUNKED"), ("content-length", "0")],
])  # fmt: skip
def test_a_body_has_one_end(headers: list[tuple[str, str]]) -> None:
    """A length and chunks are two."""
    with pytest.raises(Refused, match="Content-Length and a Transfer-Encoding"):
        sent(request("POST", "/", ("Host", NAME), *headers))


@pytest.mark.parametrize("name", [
    "X-HTTP-Method-Override", "x-http-method", "X-Method-Override", "X-Original-URL", "X_Rewrite_URL", "x-original_url",
])  # fmt: skip
def test_a_request_is_what_it_says(name: str) -> None:
    """Where requests are limited, it cannot ask to be taken for another one; elsewhere it may."""
    made = request("GET", "/", ("Host", NAME), (name, "/x"))
    sent(made)
    for known in (orders(methods=["GET"]), orders({"allow": NAME, "methods": ["GET"]})):
        with pytest.raises(Refused, match="another request"):
            sent(made, known)


def test_limits_of_rules_and_of_secrets_both_hold() -> None:
    """And a secret that does not fit gives nothing to a request that another one allows."""
    known = orders({"allow": NAME, "methods": ["GET", "POST"]}, methods=["GET"], paths=["/a/*"])
    assert sent(request("GET", "/a/b"), known).used == ()
    for method, target in (("POST", "/a/b"), ("GET", "/b"), ("GET", "/a/../b"), ("DELETE", "/a/b")):
        with pytest.raises(Refused):
            sent(request(method, target), known)
    second = Secret.parse({**SECRET, "name": "SECOND", "placeholder": "placeholder-of-second", "value": "second-value"})
    both = Orders(known.profiles, (*known.secrets, second))
    assert sent(request("POST", "/b", ("Host", NAME), ("X", "placeholder-of-second")), both).used == ("SECOND",)
    with pytest.raises(Refused, match="the secret API is not for this request"):
        sent(request("POST", "/b", ("Host", NAME), ("X", "placeholder-of-this")), both)


def test_the_value_is_in_no_refusal() -> None:
    """Nor in what is told of a request."""
    ready = sent(request("GET", "/?k=placeholder-of-this", ("Host", NAME), ("A", "placeholder-of-this")))
    assert ready.used == ("API",)
    assert b"the-value" in ready.masked
    with pytest.raises(Refused) as caught:
        sent(request("POST", "/", ("Host", NAME), ("A", "placeholder-of-this")), orders(methods=["GET"]))
    assert "the-value" not in str(caught.value)


def test_only_a_websocket_is_an_upgrade() -> None:
    """Not cleartext HTTP/2, with which requests would pass unseen; nor without the header Connection, nor by POST."""
    words = ("Host", NAME), ("Connection", "keep-alive, Upgrade")
    upgraded = dict(sent(request("GET", "/", *words, ("Upgrade", "WebSocket"))).head.headers)
    assert (upgraded[b"upgrade"], upgraded[b"connection"]) == (b"websocket", b"Upgrade")
    for made in (
        request("GET", "/", *words, ("Upgrade", "h2c")),
        request("GET", "/", *words, ("Upgrade", "websocket, h2c")),
        request("GET", "/", ("Host", NAME), ("Upgrade", "websocket")),
        request("POST", "/", *words, ("Upgrade", "websocket")),
    ):
        assert b"upgrade" not in dict(sent(made).head.headers)


_TOKENS = st.text(st.sampled_from("abcXYZ-_09"), min_size=1, max_size=8)


_NAMES = st.sampled_from(
    ["Host", "Connection", "Content-Length", "Transfer-Encoding", "Upgrade", "TE", "Expect", "Authorization"]
)
_TEXTS = st.text(st.sampled_from(" ab,:;=01chunkedws\t"), max_size=12)


@given(
    st.lists(st.tuples(_NAMES | _TOKENS, _TEXTS), max_size=6), st.text(st.sampled_from("/.%2fFeE?&=;a"), max_size=20)
)
def test_what_is_sent_is_one_request_to_that_host(headers: list[tuple[str, str]], target: str) -> None:
    """Whatever comes: a second program that reads it finds one head, one Host and one end, and nothing behind it."""
    connection = h11.Connection(h11.SERVER)
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    connection.receive_data(f"POST /{target} HTTP/1.1\r\nHost: {NAME}\r\n{head}\r\n".encode())
    try:
        event = connection.next_event()
        assert isinstance(event, h11.Request)
        ready = sent(event)
    except (h11.RemoteProtocolError, Refused):
        return
    data = h11.Connection(h11.CLIENT).send(ready.head)
    assert data is not None
    assert data.count(b"\r\n\r\n") == 1
    lines = data.lower().split(b"\r\n")
    assert [line for line in lines if line.startswith(b"host:")] == [f"host: {NAME}".encode()]
    assert len([line for line in lines if line.startswith((b"content-length:", b"transfer-encoding:"))]) <= 1
    assert not [line for line in lines if line.startswith((b"connection:", b"upgrade:", b"te:"))]
    again = h11.Connection(h11.SERVER)
    again.receive_data(data)
    assert isinstance(read := again.next_event(), h11.Request)
    assert (read.method, read.target) == (event.method, event.target)


@pytest.mark.parametrize("rule", [
    {"deny": "api.example.com", "methods": ["GET"]}, {"deny": "*", "paths": ["/x"]},
    {"allow": "10.0.0.0/8", "methods": ["GET"]}, {"allow": "api.example.com", "methods": []},
    {"allow": "api.example.com", "paths": ["x"]}, {"allow": "api.example.com", "methods": "GET"},
    {"allow": "api.example.com", "methods": ["CONNECT"]},
])  # fmt: skip
def test_a_rule_whose_limits_make_no_sense_is_refused(rule: dict[str, Any]) -> None:
    """When it is written; a denial has none: whatever is not understood would be let through."""
    with pytest.raises(UsageError) as caught:
        Profile.parse("mine", {"rules": [rule]})
    assert caught.value.code == "INVALID_EGRESS_PROFILE"


def test_a_rule_with_limits_is_read_as_it_was_written() -> None:
    """In the stored form, and as the log has it."""
    rule = {"allow": "*.example.com", "ports": [443], "methods": ["GET", "HEAD"], "paths": ["/a/*"]}
    profile = Profile.parse("mine", {"rules": [rule]})
    assert profile.to_json()["rules"] == [rule]
    assert str(profile.rules[0]) == "mine: allow *.example.com ports 443 GET,HEAD /a/*"


def test_a_host_is_opened_for_a_reason() -> None:
    """A secret, or rules that all have limits; not for a rule for all requests, nor for an address or another port."""
    limited = {"allow": "api.example.com", "methods": ["GET"], "ports": [443]}
    known = orders(limited)
    assert known.opening(NAME, 443) == Opening(known.secrets, (known.policy.rules[0].limits,))
    assert known.opening("other.example.com", 443) is None
    assert known.opening(None, 443) is None
    bare = Orders(known.profiles)
    assert bare.opening(NAME, 443) is not None
    assert bare.opening(NAME, 444) is None
    assert Orders(orders(limited, {"allow": "*.example.com"}).profiles).opening(NAME, 443) is None
