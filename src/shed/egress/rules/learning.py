"""The smallest profile that would have allowed what a shed was seen to connect to.  Pure: no I/O."""

from __future__ import annotations

import difflib
import ipaddress
import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from shed.egress.rules.addresses import forbidden, private
from shed.egress.rules.policy import Policy, Profile, normal_name
from shed.egress.rules.suffixes import Suffixes

SIBLINGS = 3
"""Names below one name from which on they are taken together as ``*.name``."""
_GONE = "there is no such name"
_HOST = "host.shed.internal"
Rule = tuple[str, tuple[int, ...], str]
"""What is allowed, its ports, and a comment."""


class Learned:
    """What a shed wanted to reach, from the decisions about it; an attempt that was refused counts as well."""

    def __init__(self) -> None:
        self._ports: dict[str, set[int]] = defaultdict(set)
        """By name or address."""
        self._behind: dict[str, str] = {}
        """Addresses in private networks, with the name that stands for them."""

    def add(self, decision: Mapping[str, Any]) -> None:
        """Take a decision, as the log has it."""
        port, name = decision.get("port"), decision.get("name")
        if not isinstance(port, int) or decision.get("error") == _GONE:
            return
        try:
            address = ipaddress.ip_address(str(decision.get("address")))
            host = str(address) if name is None else normal_name(str(name))
        except ValueError:
            return
        self._ports[host].add(port)
        if name is not None and private(address):
            self._behind[str(address)] = host
            self._ports[str(address)].add(port)

    @property
    def count(self) -> int:
        """How many hosts and ports were seen."""
        return sum(len(ports) for ports in self._ports.values())

    def missing(self, base: Profile, suffixes: Suffixes) -> list[Rule]:
        """Return the rules that `base` lacks to allow all of it, names before addresses."""
        policy = Policy.of([base])
        names: dict[tuple[str, tuple[int, ...]], list[str]] = defaultdict(list)
        addresses: list[Rule] = []
        for host, all_ports in sorted(self._ports.items()):
            try:
                address = ipaddress.ip_address(host)
            except ValueError:
                if ports := tuple(sorted(port for port in all_ports if not policy.about_name(host, port).allowed)):
                    names[host.partition(".")[2], ports].append(host)
                continue
            named = host in self._behind
            ports = tuple(
                sorted(port for port in all_ports if not policy.about_address(address, port, named=named).allowed)
            )
            if ports:
                addresses.append((f"{address}/{address.max_prefixlen}", ports, self._about(host)))
        rules: list[Rule] = []
        for (parent, ports), hosts in names.items():
            if len(hosts) >= SIBLINGS and suffixes.registrable(parent) is not None:
                rules.append((f"*.{parent}", ports, ", ".join(hosts)))
            else:
                rules += [(host, ports, "use `--host-port`" if host == _HOST else "") for host in hosts]
        return [*sorted(rules), *addresses]

    def _about(self, address: str) -> str:
        if forbidden(ipaddress.ip_address(address)):
            return "never reached, whatever the rules say"
        if name := self._behind.get(address):
            return f"{name}, in a private network"
        return "a bare address: it may be another host's later"


def extended(base: Profile, rules: list[Rule]) -> dict[str, Any]:
    """Return the document of `base` with these rules, but for those that can have no effect."""
    document = base.to_json()
    useful = [{"allow": subject, "ports": list(ports)} for subject, ports, _ in rules if not _useless(subject)]
    return {**document, "rules": [*document["rules"], *useful]}


def as_yaml(base: Profile, rules: list[Rule]) -> str:
    """Return the profile as a file for `shed egress profile set`."""
    lines = [f"  - {json.dumps(rule)}" for rule in base.to_json()["rules"]]
    for subject, ports, comment in rules:
        mark = "  # - " if _useless(subject) else "  - "
        text = mark + json.dumps({"allow": subject, "ports": list(ports)})
        lines.append(f"{text}  # {comment}" if comment else text)
    head = "rules:" if any(line.startswith("  - ") for line in lines) else "rules: []"
    return "\n".join([head, *lines, f"log: {base.to_json()['log']}", ""])


def as_diff(base: Profile, rules: list[Rule]) -> str:
    """Return what the rules add to `base`, as a unified diff; empty when they add nothing."""
    before, after = as_yaml(base, []).splitlines(), as_yaml(base, rules).splitlines()
    found = difflib.unified_diff(before, after, base.name, f"{base.name}, learned", lineterm="")
    return "".join(f"{line}\n" for line in found)


def _useless(subject: str) -> bool:
    """Say whether no rule for `subject` can have an effect."""
    address, slash, _ = subject.partition("/")
    return subject == _HOST or (bool(slash) and forbidden(ipaddress.ip_address(address)))
