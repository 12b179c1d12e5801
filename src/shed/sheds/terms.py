"""What holds for each shed of a server, told in two documents: orders for the relay, and an outfit for the guest.

Only the orders have the values of secrets and the key of the shed's certificate authority.
"""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import replace
from pathlib import Path

from shed.config.paths import Paths
from shed.config.server import Settings
from shed.egress.orders import Orders
from shed.egress.rules.limits import UNLIMITED
from shed.egress.rules.policy import Profile
from shed.egress.rules.store import ProfileStore
from shed.egress.secrets import certificates
from shed.egress.secrets.authority import Authority
from shed.egress.secrets.signing import make_leaf
from shed.errors import UsageError
from shed.sheds import repository
from shed.sheds.boot import Outfit
from shed.sheds.metadata import Record
from shed.sheds.mirrors import Mirrors, of_host
from shed.sheds.secrets import ShedSecrets
from shed.threads import in_thread

log = logging.getLogger(__name__)
_MOST_LEAVES = 32
"""Hosts for which the authority signs at once; for others the relay has it sign when they are connected."""
_NOTHING = {"rules": [{"deny": "*"}, {"deny": "0.0.0.0/0"}, {"deny": "::/0"}]}


class Terms:
    """The terms of the sheds below `paths`.  All of it but `equip` blocks for a moment."""

    def __init__(self, paths: Paths, settings: Settings) -> None:
        self.profiles = ProfileStore(paths.data / "egress", settings.egress_profiles)
        self.secrets = ShedSecrets(paths)
        self._extra_cas = settings.egress_extra_cas
        self._environment = settings.guest_environment
        self._wants_mirrors = settings.guest_mirrors
        self._mirrors = Mirrors({}, "", ())

    def profiles_of(self, record: Record) -> tuple[Profile, ...]:
        """Return the profiles of a shed.  One that is gone denies everything: nobody knows what it denied."""
        known = self.profiles.all()
        found = tuple(known.get(name) or Profile.parse(name, _NOTHING) for name in record.egress_profiles)
        return (*found, *map(repository.profile, record.repo_hosts or ()))

    def orders(self, record: Record) -> Orders:
        """Return what the relay is told.

        The command of a secret may take `shed.egress.secrets.secretvalue.TIME` seconds.
        """
        authority = self._authority(record)
        secrets = self.secrets.for_relay(record)
        orders = Orders(self.profiles_of(record), secrets, authority, extra_authorities=self._extra_authorities())
        if authority is None:
            return orders
        names = orders.opened_names()[:_MOST_LEAVES]
        with contextlib.suppress(UsageError):  # the relay says so when one of them is connected
            return replace(orders, leaves=tuple(make_leaf(authority, name) for name in names))
        return orders

    def outfit(self, record: Record) -> Outfit:
        """Return what the guest is told."""
        pems = list(self._extra_authorities())
        if (own := self._authority(record)) is not None:
            pems.append(own.certificate)
        mirrors = self.mirrors()
        variables = {
            **(record.project_env or {}),
            **mirrors.variables,
            **self._environment,
            **self.secrets.environment(record),
        }
        variables |= record.variables or {}
        return Outfit(variables, [certificates.for_guest(pem) for pem in pems], mirrors.apt)

    def problems(self, record: Record) -> list[str]:
        """Return a sentence for each thing that a shed does without although somebody may expect it."""
        return [*self.secrets.problems(record), *self.mirrors().left_out]

    def mirrors(self) -> Mirrors:
        """Return the host's settings for mirrors of packages; what is left out is told in the log when it is new."""
        if self._wants_mirrors:
            before, self._mirrors = self._mirrors, of_host(os.environ, Path.home())
            for sentence in set(self._mirrors.left_out) - set(before.left_out):
                log.warning("%s", sentence)
        return self._mirrors

    async def equip(self, record: Record) -> Outfit:
        """Return what the guest is told; see `shed.sheds.boot.Equip`."""
        return await in_thread(self.outfit, record)

    def _authority(self, record: Record) -> Authority | None:
        """Return the shed's own authority; None when TLS is opened for no host."""
        limited = any(rule.limits != UNLIMITED for profile in self.profiles_of(record) for rule in profile.rules)
        return self.secrets.authority(record) if record.secrets or limited else None

    def _extra_authorities(self) -> tuple[str, ...]:
        """Return the certificates that the host's administrator wants trusted, as PEM."""
        return certificates.read(certificates.added_here() if self._extra_cas is None else self._extra_cas)
