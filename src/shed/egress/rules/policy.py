"""Rules for what a shed may reach, profiles of rules, and the decision.

A profile is a list of rules:

```yaml
rules:
  - allow: "*.github.com"   # subdomains only; `github.com` is that name alone, `*` every name with a dot
    ports: [443, 22]        # absent: every port
  - deny: tracker.example
  - allow: api.example.com  # TLS is opened, and these requests alone are made
    methods: [GET]
    paths: [/repos/me/*]
  - allow: 10.1.2.0/24      # addresses; a network behind the host is opened only by a rule that lies within it
log: refused                # or all
```

The profiles of a shed are taken together.  Every deny is looked at before every allow; the first rule that fits
decides; where none fits, the answer is no.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from shed.egress.rules.addresses import Address, Network, forbidden, is_private_network, private
from shed.egress.rules.limits import UNLIMITED, Limits
from shed.errors import NotFoundError, UsageError

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_PROFILE = re.compile(r"[a-z][a-z0-9-]{0,62}")
MOST_NAME = 253
"""Characters of a name, without the dot at its end (RFC 1035)."""
MOST_RULES = 1000
"""Of one profile."""
LOGS = ("refused", "all")
_MEMBERS = ("allow", "deny", "ports", "methods", "paths")
_HINT = "a rule is allow: or deny: with a name, *.name, * or a network, and if need be ports: [443]"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: exactly one of `name` and `network` is set."""

    allow: bool
    ports: frozenset[int] | None
    """None: every port."""
    name: str | None = None
    """A name, ``*.name`` for its subdomains, or ``*``."""
    network: Network | None = None
    profile: str = ""
    """The profile that it belongs to."""
    limits: Limits = UNLIMITED
    """The requests that an allowed name is meant for."""

    def __str__(self) -> str:
        """Return the rule as the log has it."""
        ports = "" if self.ports is None else f" ports {','.join(map(str, sorted(self.ports)))}"
        subject = self.name if self.name is not None else str(self.network)
        return f"{self.profile}: {'allow' if self.allow else 'deny'} {subject}{ports} {self.limits}".rstrip()

    def fits_name(self, name: str, port: int) -> bool:
        """Say whether the rule is about `port` of the host called `name`, which is normal (`normal_name`)."""
        if self.name is None or not self._fits_port(port):
            return False
        if self.allow and self.name == "*" and "." not in name:  # such names are of the host's network alone
            return False
        return name_fits(self.name, name)

    def fits_address(self, address: Address, port: int) -> bool:
        """Say whether the rule is about `port` of `address`."""
        return self.network is not None and self._fits_port(port) and address in self.network

    def _fits_port(self, port: int) -> bool:
        return self.ports is None or port in self.ports


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided, and why."""

    allowed: bool
    reason: str
    """The rule, or in words what stands against it."""
    lacks: str = ""
    """What a rule would have to be about to allow it; empty when none can."""


NO_RULE = Verdict(False, "no rule allows it")


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of one shed, from all its profiles, in the order in which they are asked: denials first."""

    rules: tuple[Rule, ...]
    log_all: bool = False
    """Whether what is allowed is logged too."""

    @classmethod
    def of(cls, profiles: Iterable[Profile]) -> Policy:
        """Return what `profiles` allow together."""
        found = list(profiles)
        rules = [rule for profile in found for rule in profile.rules]
        ordered = (*(rule for rule in rules if not rule.allow), *(rule for rule in rules if rule.allow))
        return cls(ordered, any(profile.log_all for profile in found))

    def about_name(self, name: str, port: int) -> Verdict:
        """Return the verdict on a connection to `port` of the host called `name`, before its addresses are known."""
        for rule in self.rules:
            if rule.fits_name(name, port):
                return Verdict(rule.allow, str(rule))
        return replace(NO_RULE, lacks=name)

    def limits(self, name: str, port: int) -> tuple[Limits, ...] | None:
        """Return the requests that are allowed to a host that is; None when all are."""
        found = tuple(rule.limits for rule in self.rules if rule.allow and rule.fits_name(name, port))
        return None if not found or UNLIMITED in found else found

    def may_look_up(self, name: str) -> bool:
        """Say whether some port of `name` is allowed, so that its addresses may be asked for."""
        denied = False
        for rule in self.rules:
            ports = rule.ports or frozenset((443,))
            if rule.name is None or not any(rule.fits_name(name, port) for port in ports):
                continue
            if rule.allow:
                return not denied
            denied = denied or rule.ports is None
        return False

    def about_address(
        self, address: Address, port: int, *, own: Callable[[Address], bool] = lambda _: False, named: bool
    ) -> Verdict:
        """Return the verdict on a connection to `port` of `address`.

        With `named` the address is what a name stands for that is allowed already: then it takes a rule only when it
        is behind the host, and the reason does not tell the shed which address a name has there.  `own` tells the
        host's own addresses.
        """
        it, one = "its address" if named else address, f"{address}/{address.max_prefixlen}"
        if forbidden(address) or own(address):
            return Verdict(False, f"{it} is never reached from a shed")
        behind = private(address)
        for rule in self.rules:
            if not rule.fits_address(address, port):
                continue
            if not rule.allow:
                return Verdict(False, str(rule))
            assert rule.network is not None
            if not behind or is_private_network(rule.network):
                return Verdict(True, str(rule))
        if behind:
            return Verdict(False, f"{it} is in a private network, and no rule names that", "" if named else one)
        return Verdict(True, "") if named else replace(NO_RULE, lacks=one)


@dataclass(frozen=True, slots=True)
class Profile:
    """A named list of rules."""

    name: str
    rules: tuple[Rule, ...]
    log_all: bool = False

    @classmethod
    def parse(cls, name: str, document: object) -> Profile:
        """Return the profile that `document` (from YAML or JSON) describes.

        Raises `UsageError` (INVALID_EGRESS_PROFILE) that names the profile, the rule and what is wrong with it.
        """
        if not _PROFILE.fullmatch(name):
            raise _wrong(name, "its name has other characters than a-z, 0-9 and '-'")
        if not isinstance(document, dict) or not isinstance(rules := document.get("rules", []), list):
            raise _wrong(name, "it is not an object with a list `rules`")
        if unknown := sorted(set(map(str, document)) - {"rules", "log"}):
            raise _wrong(name, f"it has no member {unknown[0]!r}")
        if (log := document.get("log", LOGS[0])) not in LOGS:
            raise _wrong(name, f"log is {' or '.join(LOGS)}, not {log!r}")
        if len(rules) > MOST_RULES:
            raise _wrong(name, f"it has more than {MOST_RULES} rules")
        parsed = tuple(_rule(name, number, rule) for number, rule in enumerate(rules, 1))
        return cls(name, parsed, log == "all")

    def to_json(self) -> dict[str, Any]:
        """Return what `parse` reads."""
        return {"rules": [_to_json(rule) for rule in self.rules], "log": LOGS[self.log_all]}


def name_fits(pattern: str, name: str) -> bool:
    """Say whether the host called `name`, which is normal, is meant by a name, ``*.name`` or ``*``."""
    return pattern == "*" or (name.endswith(pattern[1:]) if pattern.startswith("*.") else name == pattern)


def normal_name(text: str) -> str:
    """Return a host's name in lower case and without the dot at its end.  Raises `ValueError` when it is none.

    What reads as an IPv4 address in any spelling that `inet_aton` knows is not a name, nor is one with a last label
    of digits alone (WHATWG URL, section 3.5): what names it and what is dialled must not differ.
    """
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    if not name or len(name) > MOST_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{text[:80]!r} is not the name of a host")
    if labels[-1].isdigit() or re.fullmatch(r"0x[0-9a-f]*", labels[-1]):
        raise ValueError(f"{text[:80]!r} is an address, or reads like one")
    return name


def _rule(profile: str, number: int, document: object) -> Rule:
    where = f"rule {number}"
    if not isinstance(document, dict) or len({"allow", "deny"} & set(document)) != 1:
        raise _wrong(profile, f"{where} has neither allow nor deny, or both")
    if unknown := sorted(set(map(str, document)) - set(_MEMBERS)):
        raise _wrong(profile, f"{where} has no member {unknown[0]!r}")
    allow = "allow" in document
    subject = document["allow" if allow else "deny"]
    if not isinstance(subject, str) or not subject:
        raise _wrong(profile, f"{where}: {subject!r} is neither a name nor a network")
    ports = _ports(profile, where, document.get("ports"))
    try:
        limits = Limits.parse(document.get("methods"), document.get("paths"))
    except ValueError as error:
        raise _wrong(profile, f"{where}: {error}") from None
    if limits != UNLIMITED and not allow:
        raise _wrong(profile, f"{where}: a denial has no methods and paths: allow those that are meant")
    if subject == "*":
        return Rule(allow, ports, name="*", profile=profile, limits=limits)
    try:
        network = ipaddress.ip_network(subject)
    except ValueError as error:
        if "/" in subject or re.fullmatch(r"[0-9.]+|.*:.*", subject):
            raise _wrong(profile, f"{where}: {error}") from None
    else:
        if limits != UNLIMITED:
            raise _wrong(profile, f"{where}: methods and paths are for names, not for networks")
        return Rule(allow, ports, network=network, profile=profile)
    prefix, rest = ("*.", subject[2:]) if subject.startswith("*.") else ("", subject)
    if not rest.isascii():
        raise _wrong(profile, f"{where}: {subject!r} is not ASCII: write its xn-- form")
    try:
        return Rule(allow, ports, name=prefix + normal_name(rest), profile=profile, limits=limits)
    except ValueError:
        raise _wrong(profile, f"{where}: {subject!r} is neither a name, *.name, * nor a network") from None


def _ports(profile: str, where: str, value: object) -> frozenset[int] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not value:
        raise _wrong(profile, f"{where}: ports is not a list of numbers")
    for port in value:
        if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
            raise _wrong(profile, f"{where}: {port!r} is not a port")
    return frozenset(value)


def _to_json(rule: Rule) -> dict[str, Any]:
    subject = rule.name if rule.name is not None else str(rule.network)
    shown: dict[str, Any] = {"allow" if rule.allow else "deny": subject}
    if rule.ports is not None:
        shown["ports"] = sorted(rule.ports)
    return {**shown, **rule.limits.to_json()}


def _wrong(profile: str, what: str) -> UsageError:
    return UsageError(f"egress profile {profile}: {what}", code="INVALID_EGRESS_PROFILE", hint=_HINT)


def check_names(names: Iterable[str], known: Mapping[str, Profile]) -> None:
    """Raise `NotFoundError` (UNKNOWN_EGRESS_PROFILE) for a name that is not among `known`."""
    for name in names:
        if name not in known:
            raise NotFoundError(
                f"there is no egress profile {name!r}",
                code="UNKNOWN_EGRESS_PROFILE",
                hint=f"choose from {', '.join(sorted(known))}, or make one: shed egress profile set {name}",
            )
