"""Learning a profile: what is proposed, and what never is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from shed.egress.rules.learning import Learned, as_diff, as_yaml, extended
from shed.egress.rules.policy import Policy, Profile
from shed.egress.rules.suffixes import Suffixes

LIST = """// a comment
com
uk
co.uk
*.ck
!www.ck
github.io
公司.cn
"""
EMPTY = Profile.parse("learned", {"rules": []})


@pytest.fixture(scope="module")
def suffixes(tmp_path_factory: pytest.TempPathFactory) -> Suffixes:
    """A short list."""
    path = tmp_path_factory.mktemp("list") / "list.dat"
    path.write_text(LIST)
    return Suffixes(path)


def learned(*seen: str, address: str = "93.184.216.34", **more: Any) -> Learned:
    """Return what is learned of connections, written as ``host:port``."""
    found = Learned()
    for text in seen:
        host, _, port = text.rpartition(":")
        named = not host.replace(".", "").isdigit()
        about = {"name": host, "address": address} if named else {"address": host}
        found.add({**about, "port": int(port), "allowed": False, **more})
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("com", None), ("example.com", "example.com"), ("a.b.example.com", "example.com"), ("co.uk", None),
        ("x.co.uk", "x.co.uk"), ("y.x.co.uk", "x.co.uk"), ("github.io", None), ("me.github.io", "me.github.io"),
        ("ck", None), ("foo.ck", None), ("a.foo.ck", "a.foo.ck"), ("www.ck", "www.ck"), ("b.www.ck", "www.ck"),
        ("local", None), ("host.local", "host.local"), ("a.xn--55qx5d.cn", "a.xn--55qx5d.cn"), ("xn--55qx5d.cn", None),
    ],
)  # fmt: skip
def test_what_somebody_can_register(suffixes: Suffixes, name: str, expected: str | None) -> None:
    """As https://publicsuffix.org/list/ has it: rules, wildcards, exceptions, other scripts, and names of no rule."""
    assert suffixes.registrable(name) == expected


def test_without_a_list_nothing_is_registrable(tmp_path: Path) -> None:
    """So that no wildcard is proposed at all."""
    without = Suffixes(tmp_path / "missing")
    assert not without.known
    assert without.registrable("www.example.com") is None
    seen = learned(*(f"{letter}.example.com:443" for letter in "abcd"))
    assert [rule[0] for rule in seen.missing(EMPTY, without)] == [f"{letter}.example.com" for letter in "abcd"]


def test_siblings_are_taken_together_only_below_what_is_registered(suffixes: Suffixes) -> None:
    """Several of them, with the same ports; never all of `.com`, nor all pages of a host of pages."""
    seen = learned(
        "a.example.com:443", "b.example.com:443", "c.example.com:443", "d.example.com:80", "example.com:443",
        "one.com:443", "two.com:443", "three.com:443", "x.github.io:443", "y.github.io:443", "z.github.io:443",
        "a.cdn.example.com:443", "b.cdn.example.com:443",
    )  # fmt: skip
    assert {subject: ports for subject, ports, _ in seen.missing(EMPTY, suffixes)} == {
        "*.example.com": (443,), "d.example.com": (80,), "example.com": (443,),
        "one.com": (443,), "two.com": (443,), "three.com": (443,),
        "x.github.io": (443,), "y.github.io": (443,), "z.github.io": (443,),
        "a.cdn.example.com": (443,), "b.cdn.example.com": (443,),
    }  # fmt: skip


def test_what_a_profile_allows_already_is_not_proposed(suffixes: Suffixes) -> None:
    """The rest comes behind its rules, and is shown as a diff."""
    base = Profile.parse("work", {"rules": [{"allow": "*.example.com", "ports": [443]}], "log": "all"})
    seen = learned("a.example.com:443", "b.example.com:22", "8.8.8.8:53")
    rules = seen.missing(base, suffixes)
    assert rules == [
        ("b.example.com", (22,), ""),
        ("8.8.8.8/32", (53,), "a bare address: it may be another host's later"),
    ]
    assert as_diff(base, rules).splitlines()[3:] == [
        " rules:",
        '   - {"allow": "*.example.com", "ports": [443]}',
        '+  - {"allow": "b.example.com", "ports": [22]}',
        '+  - {"allow": "8.8.8.8/32", "ports": [53]}  # a bare address: it may be another host\'s later',
        " log: all",
    ]
    assert as_diff(base, []) == ""
    assert learned("a.example.com:443").missing(base, suffixes) == []


def test_a_name_in_a_private_network_needs_its_address_too(suffixes: Suffixes) -> None:
    """And says so; what is never reached is shown, and not part of the profile."""
    seen = learned("git.corp.example.com:443", address="10.1.2.3")
    seen.add({"address": "169.254.169.254", "port": 80})
    seen.add({"name": "host.shed.internal", "address": "198.18.0.1", "port": 5432})
    rules = seen.missing(EMPTY, suffixes)
    assert [rule[0] for rule in rules] == [
        "git.corp.example.com", "host.shed.internal", "10.1.2.3/32", "169.254.169.254/32"
    ]  # fmt: skip
    text = as_yaml(EMPTY, rules)
    assert '  - {"allow": "10.1.2.3/32", "ports": [443]}  # git.corp.example.com, in a private network\n' in text
    assert '  # - {"allow": "169.254.169.254/32", "ports": [80]}  # never reached' in text
    assert '  # - {"allow": "host.shed.internal", "ports": [5432]}  # use `--host-port`\n' in text
    assert yaml.safe_load(text) == extended(EMPTY, rules)
    assert [rule["allow"] for rule in extended(EMPTY, rules)["rules"]] == ["git.corp.example.com", "10.1.2.3/32"]


def test_what_is_no_connection_is_passed_over(suffixes: Suffixes) -> None:
    """A name that there is not, an entry about missing entries, and nonsense of a guest."""
    found = learned("typo.example.com:443", error="there is no such name")
    for nonsense in (
        {},
        {"left_out": 3, "shed": "dev"},
        {"name": "a b", "port": 1, "address": "1.1.1.1"},
        {"port": "x"},
    ):
        found.add(nonsense)
    assert (found.count, found.missing(EMPTY, suffixes)) == (0, [])


LABEL = st.sampled_from(["a", "b", "c", "d", "www", "example", "github", "io", "com", "co", "uk", "ck"])


@given(
    st.lists(
        st.tuples(st.lists(LABEL, min_size=1, max_size=5).map(".".join), st.sampled_from([22, 80, 443])), max_size=30
    )
)
def test_a_learned_profile_is_enough_and_no_wildcard_is_wider_than_what_is_registered(
    suffixes: Suffixes, seen: list[tuple[str, int]]
) -> None:
    """Whatever was seen: all of it is allowed then, and the profile can be set as it is written."""
    rules = learned(*(f"{name}:{port}" for name, port in seen)).missing(EMPTY, suffixes)
    profile = Profile.parse("learned", yaml.safe_load(as_yaml(EMPTY, rules)))
    policy = Policy.of([profile])
    assert all(policy.about_name(name, port).allowed for name, port in seen)
    for subject, _, _ in rules:
        if subject.startswith("*."):
            assert suffixes.registrable(subject[2:]) is not None
