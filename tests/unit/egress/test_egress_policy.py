"""Rules: what is refused when it is written, which one decides, and addresses that none of them opens."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shed.egress.rules.addresses import PRIVATE, forbidden, private
from shed.egress.rules.policy import Policy, Profile, check_names, normal_name
from shed.egress.rules.profiles import BUILT_IN
from shed.errors import NotFoundError, UsageError


def policy(*rules: dict[str, object]) -> Policy:
    """Return the policy of one profile."""
    return Policy.of([Profile.parse("mine", {"rules": list(rules)})])


def address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the address that `text` spells."""
    return ipaddress.ip_address(text)


@pytest.mark.parametrize(("rule", "name", "fits"), [
    ("github.com", "github.com", True),
    ("github.com", "api.github.com", False),
    ("github.com", "notgithub.com", False),
    ("*.github.com", "api.github.com", True),
    ("*.github.com", "a.b.github.com", True),
    ("*.github.com", "github.com", False),
    ("*.github.com", "evilgithub.com", False),
    ("*", "anything.example", True),
    ("*", "intranet", False),
    ("intranet", "intranet", True),
    ("GitHub.COM.", "github.com", True),
])  # fmt: skip
def test_a_name_fits_a_rule(rule: str, name: str, fits: bool) -> None:
    """A star stands for subdomains only, and a name for itself alone."""
    assert policy({"allow": rule}).about_name(name, 443).allowed is fits


def test_a_rule_with_ports_is_about_these_alone() -> None:
    """What is allowed on one port is not allowed on another."""
    rules = policy({"allow": "github.com", "ports": [443]})
    assert rules.about_name("github.com", 443).allowed
    assert not rules.about_name("github.com", 22).allowed


def test_a_denial_comes_before_whatever_allows() -> None:
    """In every order, also when it comes from another profile."""
    allow = Profile.parse("a", {"rules": [{"allow": "*"}]})
    deny = Profile.parse("b", {"rules": [{"deny": "*.bad.example"}]})
    for profiles in ([allow, deny], [deny, allow]):
        verdict = Policy.of(profiles).about_name("x.bad.example", 443)
        assert (verdict.allowed, verdict.reason) == (False, "b: deny *.bad.example")
        assert Policy.of(profiles).about_name("bad.example", 443).allowed


def test_a_star_denies_names_without_a_dot_too() -> None:
    """It allows none of them: they are of the host's own network."""
    assert not policy({"deny": "*"}, {"allow": "intranet"}).about_name("intranet", 443).allowed


def test_without_a_rule_the_answer_is_no() -> None:
    """An empty policy allows neither names nor addresses."""
    assert not Policy.of([]).about_name("github.com", 443).allowed
    assert not Policy.of([]).about_address(address("93.184.216.34"), 443, named=False).allowed


NEVER_REACHED = (
    "127.0.0.1", "127.255.0.1", "0.0.0.0", "0.1.2.3", "169.254.169.254", "224.0.0.1", "255.255.255.255", "240.0.0.1",
    "198.18.0.1", "192.0.0.192", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "2002:7f00:1::1", "2002:a9fe:a9fe::",
    "2001:0:7f00:1::", "2001:0:4136:e378:8000:63bf:80ff:fffe", "fe80::1", "fe80::5efe:7f00:1", "2001:470::5efe:7f00:1",
    "2001:470::200:5efe:a9fe:a9fe", "fec0::1", "ff02::1", "fd00:ec2::254",
)  # fmt: skip


@pytest.mark.parametrize("text", NEVER_REACHED)
def test_no_rule_opens_the_host_or_what_is_beside_it(text: str) -> None:
    """In every spelling, whatever is allowed by name or by number."""
    everything = policy({"allow": "*"}, {"allow": "0.0.0.0/0"}, {"allow": "::/0"}, {"allow": text})
    for named in (False, True):
        assert not everything.about_address(address(text), 443, named=named).allowed


@pytest.mark.parametrize("text", ["10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fd12::1", "::ffff:10.1.2.3",
                                  "64:ff9b::a01:203", "2002:a01:203::1"])  # fmt: skip
def test_a_private_address_is_opened_only_by_a_rule_within_such_a_network(text: str) -> None:
    """Neither a name that leads there nor a rule for everything does."""
    everything = policy({"allow": "*"}, {"allow": "0.0.0.0/0"}, {"allow": "::/0"})
    for named in (False, True):
        assert not everything.about_address(address(text), 443, named=named).allowed
    assert policy({"allow": "10.1.2.0/24"}).about_address(address("10.1.2.3"), 5432, named=True).allowed
    assert not policy({"allow": "10.1.2.0/24"}).about_address(address("10.1.3.3"), 5432, named=True).allowed


def test_the_hosts_own_addresses_are_never_opened() -> None:
    """Also where they are public, and where a rule names them."""
    rules = policy({"allow": "93.184.216.34"})
    assert rules.about_address(address("93.184.216.34"), 22, named=False).allowed
    assert not rules.about_address(address("93.184.216.34"), 22, own=lambda _: True, named=False).allowed


def test_a_denied_network_counts_for_names_too() -> None:
    """A name that is allowed does not lead into a network that is denied."""
    rules = policy({"allow": "*"}, {"deny": "93.184.216.0/24"})
    assert not rules.about_address(address("93.184.216.34"), 443, named=True).allowed
    assert rules.about_address(address("93.184.217.34"), 443, named=True).allowed


@pytest.mark.parametrize("rule", [
    {}, {"allow": "a.example", "deny": "b.example"}, {"allow": ""}, {"allow": 3}, {"allow": "a.example", "port": 443},
    {"allow": "a.*.example"}, {"allow": "*a.example"}, {"allow": "**.example"}, {"allow": "*."}, {"allow": "exa mple"},
    {"allow": "10.1.2.3/8"}, {"allow": "10.1.2"}, {"allow": "0x7f.1"}, {"allow": "300.1.1.1"},
    {"allow": "bücher.example"},
    {"allow": "http://a.example"}, {"allow": "a.example:443"}, {"allow": "a..example"}, {"allow": "-a.example"},
    {"allow": "a" * 64 + ".example"}, {"allow": "a.example", "ports": []}, {"allow": "a.example", "ports": [0]},
    {"allow": "a.example", "ports": [True]}, {"allow": "a.example", "ports": "443"}, "allow",
])  # fmt: skip
def test_a_bad_rule_is_refused_when_it_is_written(rule: object) -> None:
    """With the profile's name and the rule's number."""
    with pytest.raises(UsageError, match=r"^egress profile mine: rule 2") as caught:
        Profile.parse("mine", {"rules": [{"allow": "*"}, rule]})
    assert caught.value.code == "INVALID_EGRESS_PROFILE"
    assert caught.value.hint


@pytest.mark.parametrize(
    "document", [None, [], {"rules": 3}, {"rule": []}, {"log": "some"}, {"rules": [{"allow": "*"}] * 1001}]
)
def test_a_bad_profile_is_refused(document: object) -> None:
    """What is no list of rules, and too many."""
    with pytest.raises(UsageError):
        Profile.parse("mine", document)


def test_a_profile_survives_its_json() -> None:
    """What is written is what was read."""
    for profile in BUILT_IN.values():
        assert Profile.parse(profile.name, profile.to_json()) == profile


def test_unknown_profiles_are_named() -> None:
    """With those that there are."""
    with pytest.raises(NotFoundError, match="there is no egress profile 'none'") as caught:
        check_names(["internet", "none"], BUILT_IN)
    assert "offline" in str(caught.value.hint)


def test_the_built_in_profiles() -> None:
    """The default reaches everything public and nothing private; offline reaches nothing."""
    internet, offline = Policy.of([BUILT_IN["internet"]]), Policy.of([BUILT_IN["offline"]])
    for policy_, allowed in ((internet, True), (offline, False)):
        assert policy_.about_name("example.com", 80).allowed is allowed
        assert policy_.about_address(address("93.184.216.34"), 22, named=False).allowed is allowed
        assert not policy_.about_address(address("192.168.1.1"), 22, named=False).allowed
    assert Policy.of([BUILT_IN["offline"], BUILT_IN["github"]]).about_name("github.com", 22).allowed


@pytest.mark.parametrize("text", ["", ".", "1.2.3.4", "0x7f000001", "2130706433", "127.1", "0177.0.0.1", "a b", "a/b",
                                  "a\x00b", "a" * 254, "a..b", "%31", "x@y", "[::1]", "bücher.example"])  # fmt: skip
def test_what_reads_like_an_address_is_no_name(text: str) -> None:
    """Nor is what could mean another host to somebody else."""
    with pytest.raises(ValueError, match=r"not the name of a host|an address"):
        normal_name(text)


@given(st.ip_addresses(v=4))
def test_an_address_is_as_forbidden_in_every_spelling(inner: ipaddress.IPv4Address) -> None:
    """What IPv6 hides of an IPv4 address is ruled as that address is."""
    spelled = [f"::ffff:{inner}", f"64:ff9b::{inner}", f"2002:{int(inner) >> 16:x}:{int(inner) & 0xFFFF:x}::1"]
    for text in spelled:
        outer = ipaddress.IPv6Address(text)
        assert forbidden(outer) >= forbidden(inner)
        assert private(outer) >= private(inner)


@given(st.sampled_from([network for network in PRIVATE if network.version == 4]), st.integers(0, 2**24 - 1))
def test_everything_in_a_private_network_is_private(network: ipaddress.IPv4Network, offset: int) -> None:
    """Not only its first addresses."""
    assert private(network[offset % network.num_addresses])
