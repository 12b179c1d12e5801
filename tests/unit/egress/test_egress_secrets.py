"""What the relay is told of secrets: what makes no sense is refused, and no value is ever shown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography import x509

from shed.egress.orders import Orders
from shed.egress.secrets.secret import Secret
from shed.egress.secrets.signing import make_authority
from shed.errors import UsageError

VALUE = "ghp_0123456789abcdef"
GOOD: dict[str, Any] = {
    "name": "GITHUB_TOKEN", "placeholder": "shed_placeholder_1234", "value": VALUE, "hosts": ["api.github.com"],
}  # fmt: skip


def test_what_is_written_is_read_again() -> None:
    """With every member, and with those alone that there must be."""
    full = {**GOOD, "header": ["Authorization", "Bearer {}"], "methods": ["GET"], "paths": ["/repos/me/*"]}
    full["hosts"] = ["API.GitHub.com.", "*.github.com"]
    orders = Orders((), (Secret.parse(GOOD), Secret.parse(full)), make_authority("dev"), ("PEM",))
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
    orders = Orders((), (Secret.parse(GOOD),), make_authority("dev"))
    assert VALUE not in repr(orders)
    assert "PRIVATE KEY" not in repr(orders)
    assert "PRIVATE KEY" in json.dumps(orders.to_json())


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
