"""All that the relay is told about one shed, as one document.

Each thing that the relay does for a shed is one member of it, absent when there is nothing to do: whoever adds one
touches this file, what makes the document (`shed.sheds.egress`) and what obeys it (`shed.egress.relay.relay`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from shed.egress.rules.hostports import HOST, HostPort
from shed.egress.rules.limits import UNLIMITED, Limits
from shed.egress.rules.policy import NO_RULE, Policy, Profile, Verdict
from shed.egress.secrets.authority import Authority, Leaf
from shed.egress.secrets.secret import Secret
from shed.proxies import Proxy


@dataclass(frozen=True, slots=True)
class Opening:
    """Why TLS is opened for a host: what holds for each request to it."""

    secrets: tuple[Secret, ...]
    """Those that may be sent to it."""
    limits: tuple[Limits, ...] | None
    """The methods and paths that rules allow; None: all."""

    @property
    def is_limited(self) -> bool:
        """Whether some requests are not made."""
        return self.limits is not None or any(secret.limits != UNLIMITED for secret in self.secrets)


@dataclass(frozen=True)
class Orders:
    """What holds for one shed from now on."""

    profiles: tuple[Profile, ...] = ()
    secrets: tuple[Secret, ...] = ()
    """Those that are put into requests to their hosts, for which TLS is opened."""
    authority: Authority | None = None
    """The shed's own, which signs what it is shown where TLS is opened; None: such hosts are not reached."""
    leaves: tuple[Leaf, ...] = ()
    """What the authority has signed already, for hosts that are named: what signs takes a relay 12 MB."""
    extra_authorities: tuple[str, ...] = ()
    """Certificates, as PEM, of those that a server may be certified by, besides the host's own store."""
    host_ports: tuple[HostPort, ...] = ()
    """Ports of the host's loopback that the shed reaches by the name `HOST`."""
    proxy: Proxy | None = None
    """By which the host itself reaches the outside."""

    @cached_property
    def policy(self) -> Policy:
        """The rules of all profiles together."""
        return Policy.of(self.profiles)

    def opening(self, name: str | None, port: int) -> Opening | None:
        """Return why TLS is opened for a connection to `port` of the host `name`; None when it is not."""
        if name is None:
            return None
        secrets = tuple(secret for secret in self.secrets if secret.is_for(name))
        limits = None if name == HOST else self.policy.limits(name, port)
        return Opening(secrets, limits) if secrets or limits is not None else None

    def opened_names(self) -> list[str]:
        """Return the names for which TLS is opened, and patterns that certificates know: with two dots at least."""
        limited = (rule.name for rule in self.policy.rules if rule.allow and rule.limits != UNLIMITED)
        hosts = (host for secret in self.secrets for host in secret.hosts)
        names = (name for name in dict.fromkeys([*hosts, *limited]) if name is not None)
        return [name for name in names if name.count(".") >= 2 or "*" not in name]

    def leaf(self, name: str) -> Leaf | None:
        """Return what the authority has signed for the host `name`, or for it and its neighbours (RFC 6125)."""
        fitting = (name, f"*.{name.partition('.')[2]}")
        return next((leaf for leaf in self.leaves if leaf.name in fitting), None)

    def about_host(self, port: int) -> Verdict:
        """Return the verdict on a connection to `port` of `HOST`: a denial holds here, too, and so does no profile."""
        if not self.profiles:
            return NO_RULE
        for rule in self.policy.rules:
            if not rule.allow and rule.fits_name(HOST, port):
                return Verdict(False, str(rule))
        if (found := self.host_port(port)) is not None:
            return Verdict(True, f"host-port {found}")
        return Verdict(False, f"port {port} of the host is not open to this shed")

    def host_port(self, port: int) -> HostPort | None:
        """Return what `port` of `HOST` leads to."""
        return next((one for one in self.host_ports if one.shed_port == port), None)

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Orders:
        """Return what `to_json` made a document of.  Raises `UsageError`, `TypeError`, `AttributeError` for others."""
        authority = document.get("authority")
        return cls(
            tuple(Profile.parse(name, profile) for name, profile in document.get("profiles", {}).items()),
            tuple(Secret.parse(secret) for secret in document.get("secrets", [])),
            None if authority is None else Authority.parse(authority),
            tuple(map(Leaf.parse, document.get("leaves", ()))),
            tuple(map(str, document.get("extra_authorities", ()))),
            tuple(HostPort.parse(port) for port in document.get("host_ports", [])),
            None if document.get("proxy") is None else Proxy.of_json(document["proxy"]),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the document.  It has the values of secrets: it is for the relay alone."""
        return {
            "profiles": {profile.name: profile.to_json() for profile in self.profiles},
            "secrets": [secret.to_json() for secret in self.secrets],
            "authority": None if self.authority is None else self.authority.to_json(),
            "leaves": [leaf.to_json() for leaf in self.leaves],
            "extra_authorities": list(self.extra_authorities),
            "host_ports": [str(port) for port in self.host_ports],
            "proxy": None if self.proxy is None else self.proxy.to_json(),
        }
