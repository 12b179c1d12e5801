"""All that the relay is told about one shed, as one document.

Each thing that the relay does for a shed is one member of it, absent when there is nothing to do: whoever adds one
touches this file, what makes the document (`shed.sheds.egress`) and what obeys it (`shed.egress.relay`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from shed.egress.policy import Policy, Profile


@dataclass(frozen=True)
class Orders:
    """What holds for one shed from now on."""

    profiles: tuple[Profile, ...] = ()

    @cached_property
    def policy(self) -> Policy:
        """The rules of all profiles together."""
        return Policy.of(self.profiles)

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Orders:
        """Return what `to_json` made a document of.  Raises `UsageError`, `TypeError`, `AttributeError` for others."""
        profiles = document.get("profiles", {})
        return cls(tuple(Profile.parse(name, profile) for name, profile in profiles.items()))

    def to_json(self) -> dict[str, Any]:
        """Return the document."""
        return {"profiles": {profile.name: profile.to_json() for profile in self.profiles}}
