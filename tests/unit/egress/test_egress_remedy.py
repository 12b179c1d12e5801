"""The command that a refusal names: it must be one that helps."""

from __future__ import annotations

import ipaddress
import json
import re
import socket

import pytest

from shed.egress.orders import Orders
from shed.egress.relay.flow import Flow
from shed.egress.relay.remedy import remedy
from shed.egress.rules.hostports import HOST
from shed.egress.rules.policy import Profile
from shed.egress.rules.profiles import BUILT_IN

OWN = Profile.parse("work", {"rules": [{"allow": "a.example.com"}]})


def refused(orders: Orders, name: str | None, address: str, port: int = 443) -> str:
    """Return the remedy for a connection that `orders` refuse."""
    at = ipaddress.ip_address(address)
    with socket.socket() as sock:
        flow = Flow(name, at, port, sock)
    flow.verdict = orders.policy.about_name(name, port) if name else orders.policy.about_address(at, port, named=False)
    assert not flow.verdict.allowed
    return remedy("dev", flow, orders)


@pytest.mark.parametrize("name", ["b.example.com", None])
@pytest.mark.parametrize("address", ["8.8.8.8", "10.1.2.3", "2606:2800:220:1::1"])
def test_the_rule_that_is_named_allows_it(name: str | None, address: str) -> None:
    """In the first profile of the shed that can be changed."""
    orders = Orders((BUILT_IN["packages"], OWN))
    told = refused(orders, name, address)
    assert told.startswith("to allow it, on the host: shed egress profile edit work, with the rule {")
    rule = json.loads(told[told.index("{") :])
    with_it = Orders((*orders.profiles, Profile.parse("more", {"rules": [rule]}))).policy
    if name is None:
        assert with_it.about_address(ipaddress.ip_address(address), 443, named=False).allowed
    else:
        assert with_it.about_name(name, 443).allowed


def test_a_shed_with_built_in_profiles_gets_one_of_its_own() -> None:
    """Beside those that it has."""
    told = refused(Orders((BUILT_IN["packages"], BUILT_IN["github"])), "b.example.com", "8.8.8.8")
    assert re.search(r"profile edit dev, with the rule \{.*\}; then: shed egress set dev packages github dev$", told)


def test_where_nothing_helps_nothing_is_named() -> None:
    """What is never reached, and what a rule denies; a port of the host has a command of its own."""
    assert refused(Orders((OWN,)), None, "169.254.169.254") == ""
    denied = Profile.parse("work", {"rules": [{"deny": "x.example.com"}]})
    assert refused(Orders((denied,)), "x.example.com", "8.8.8.8") == ""
    assert refused(Orders((OWN,)), HOST, "198.18.0.1", 5432).endswith("shed ports dev --host-port 5432")
