"""What the relay is told of secrets: what makes no sense is refused, and no value is ever shown."""

from __future__ import annotations

import contextlib
import json
import ssl
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509

from shed.egress.orders import Orders
from shed.egress.rules.policy import Profile
from shed.egress.secrets.authority import FRESH, Authority, Leaf
from shed.egress.secrets.secret import Secret
from shed.egress.secrets.signing import make_authority, make_leaf
from shed.egress.tls.contexts import Leaves
from shed.errors import UsageError

VALUE = "ghp_0123456789abcdef"
GOOD: dict[str, Any] = {
    "name": "GITHUB_TOKEN", "placeholder": "shed_placeholder_1234", "value": VALUE, "hosts": ["api.github.com"],
}  # fmt: skip


def test_what_is_written_is_read_again() -> None:
    """With every member, and with those alone that there must be."""
    full = {**GOOD, "header": ["Authorization", "Bearer {}"], "methods": ["GET"], "paths": ["/repos/me/*"]}
    full["hosts"] = ["API.GitHub.com.", "*.github.com"]
    authority = make_authority("dev")
    secrets, leaves = (Secret.parse(GOOD), Secret.parse(full)), (make_leaf(authority, "api.github.com"),)
    orders = Orders((), secrets, authority, leaves, ("PEM",))
    assert Orders.parse(json.loads(json.dumps(orders.to_json()))) == orders
    assert orders.secrets[1].hosts == ("api.github.com", "*.github.com")
    assert Orders.parse({"profiles": {}}) == Orders()


@pytest.mark.parametrize("change", [
    {"name": ""}, {"name": "a b"}, {"name": "x" * 64}, {"name": 3},
    {"placeholder": "short"}, {"placeholder": "with space and more"}, {"placeholder": None},
    {"value": "1234567"}, {"value": "a" * 8193}, {"value": "two\nlines of it"}, {"value": " xyz12345 "},
    {"value": "caf\u00e9 caf\u00e9"}, {"value": 12345678}, {"value": None}, {"value": "x shed_placeholder_1234"},
    {"hosts": []}, {"hosts": ["*"]}, {"hosts": ["*.com"]}, {"hosts": ["10.1.2.3"]}, {"hosts": ["a b"]},
    {"hosts": "api.github.com"}, {"hosts": ["https://api.github.com"]}, {"hosts": [["x"]]},
    {"hosts": ["b\u00fccher.example"]},
    {"hosts": ["api.*.com"]}, {"hosts": ["*.*.example.com"]},
    {"header": ["Authorization", "Bearer"]}, {"header": ["Authorization", "{} {}"]}, {"header": ["A:", "{}"]},
    {"header": ["Host", "{}"]}, {"header": ["content-length", "{}"]}, {"header": "Authorization"},
    {"header": ["Authorization", "Bearer {}\r\nX: y"]}, {"header": ["Authorization"]}, {"header": ["X", 3]},
    {"methods": []}, {"methods": ["get"]}, {"methods": ["CONNECT"]}, {"methods": ["TRACE"]}, {"methods": "GET"},
    {"methods": [1]}, {"paths": []}, {"paths": ["repos"]}, {"paths": ["/a/../b"]}, {"paths": ["//a"]},
    {"paths": ["/a b"]}, {"paths": ["/%61"]}, {"paths": ["/x?"]}, {"paths": ["/x?service"]}, {"paths": ["/a%2fb"]},
    {"paths": ["/" + "a" * 1000]}, {"what": 1},
])  # fmt: skip
def test_nonsense_is_refused_without_the_value(change: dict[str, Any]) -> None:
    """With one sentence that names the secret; the value is in none of them."""
    document = {**GOOD, **change}
    with pytest.raises(UsageError) as caught:
        Secret.parse(document)
    assert caught.value.code == "INVALID_SECRET"
    assert "secret" in str(caught.value)
    assert VALUE not in str(caught.value)
    if "value" in change:
        assert str(change["value"]) not in str(caught.value)


def test_neither_a_value_nor_a_key_is_shown() -> None:
    """Whatever prints orders prints neither."""
    authority = make_authority("dev")
    orders = Orders((), (Secret.parse(GOOD),), authority, (make_leaf(authority, "api.github.com"),))
    assert VALUE not in repr(orders)
    assert "PRIVATE KEY" not in repr(orders)
    assert json.dumps(orders.to_json()).count("BEGIN PRIVATE KEY") == 2


@pytest.mark.parametrize("change", [{"name": 1}, {"pem": None}, {"made": "now"}, {"more": 1}])
def test_what_is_no_certificate_of_a_host_is_refused(change: dict[str, Any]) -> None:
    """As orders have it."""
    with pytest.raises(UsageError, match="a certificate of a host is"):
        Leaf.parse({"name": "api.github.com", "pem": "PEM", "made": 1, **change})


def test_certificates_are_made_for_what_is_opened() -> None:
    """A rule without limits opens nothing; no client takes a certificate for all of a top-level domain."""
    rules = [
        {"allow": "limited.example", "methods": ["GET"]}, {"allow": "*.limited.example", "paths": ["/a"]},
        {"allow": "*.com", "paths": ["/a"]}, {"allow": "*", "paths": ["/a"]},
        {"allow": "free.example"}, {"deny": "denied.example"}, {"allow": "10.1.2.0/24"},
    ]  # fmt: skip
    secret = Secret.parse({**GOOD, "hosts": ["api.github.com", "*.github.com", "limited.example"]})
    orders = Orders((Profile.parse("mine", {"rules": rules}),), (secret,))
    assert orders.opened_names() == ["api.github.com", "*.github.com", "limited.example", "*.limited.example"]


def test_a_certificate_for_subdomains_is_for_one_label() -> None:
    """As clients read it (RFC 6125); the name's own comes first if it does."""
    leaves = tuple(Leaf(name, "PEM", 1) for name in ("api.github.com", "*.github.com"))
    orders = Orders(leaves=leaves)
    names = ("api.github.com", "uploads.github.com", "a.b.github.com", "github.com", "evilgithub.com", "com")
    assert [orders.leaf(name) for name in names] == [leaves[0], leaves[1], None, None, None, None]


def test_a_certificate_that_is_ready_is_shown_while_it_is_fresh() -> None:
    """Clients take one for subdomains.  Another one is signed for the host when it is old, or when there is none."""
    authority = make_authority("dev")
    ready = make_leaf(authority, "*.github.com")
    for offered, shown in ((ready, True), (replace(ready, made=ready.made - FRESH), False), (None, False)):
        context = Leaves(authority).context("api.github.com", offered)
        own = x509.load_pem_x509_certificate(ready.pem.encode()).serial_number
        assert (_serial_shown(context, authority) == own) is shown


def _serial_shown(context: ssl.SSLContext, authority: Authority) -> int:
    """Return the serial number of what a client of `authority` is shown, which must be valid."""
    trusting = ssl.create_default_context(cadata=authority.certificate)
    ends = [(ssl.MemoryBIO(), ssl.MemoryBIO()) for _ in range(2)]
    client = trusting.wrap_bio(*ends[0], server_hostname="api.github.com")
    server = context.wrap_bio(*ends[1], server_side=True)
    for _ in range(3):
        for side, (_, out), (there, _) in ((client, ends[0], ends[1]), (server, ends[1], ends[0])):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
            there.write(out.read())
    shown = client.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


def test_a_secret_is_for_its_hosts_alone() -> None:
    """A star stands for subdomains only."""
    secret = Secret.parse({**GOOD, "hosts": ["example.com", "*.example.org"]})
    assert [host for host in ("example.com", "a.example.com", "example.org", "a.b.example.org", "evilexample.org")
            if secret.is_for(host)] == ["example.com", "a.b.example.org"]  # fmt: skip


def test_an_authority_signs_for_hosts_and_for_nothing_else() -> None:
    """No authority below it; each has a serial number and a key of its own."""
    one, other = make_authority("dev"), make_authority("x" * 63)
    found = x509.load_pem_x509_certificate(one.certificate.encode())
    limits = found.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (limits.critical, limits.value.ca, limits.value.path_length) == (True, True, 0)
    assert one.key != other.key
    assert found.serial_number != x509.load_pem_x509_certificate(other.certificate.encode()).serial_number
