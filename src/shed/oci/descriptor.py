"""Descriptors: what one OCI document says about a blob, and the platform it is for."""

from __future__ import annotations

import platform as host
from dataclasses import dataclass, field
from typing import Any

from shed.errors import UsageError
from shed.oci.digest import Digest, parse_digest
from shed.oci.fields import Fields
from shed.text import visible

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64", "AMD64": "amd64"}
"""What `platform.machine` says, and what OCI calls it."""


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system and a processor, as in ``linux/amd64`` or ``linux/arm64/v8``."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        """As above, and visible, whatever the document that it is from says."""
        return visible("/".join(part for part in (self.os, self.architecture, self.variant) if part))

    def matches(self, other: Platform) -> bool:
        """Tell whether both mean the same machine; a variant counts only when both name one."""
        same = (self.os, self.architecture) == (other.os, other.architecture)
        return same and (not self.variant or not other.variant or self.variant == other.variant)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Return the platform that `text` names: ``os/architecture[/variant]``.  Raises `UsageError`."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise UsageError(f"invalid platform {text!r}", hint="write it as linux/amd64 or linux/arm64")
        return cls(*parts)

    @classmethod
    def of_host(cls) -> Platform:
        """Return the Linux platform that this machine's virtual machines run."""
        machine = host.machine()
        return cls("linux", _ARCHITECTURES.get(machine, machine))


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A typed, sized pointer to a blob."""

    media_type: str
    digest: Digest
    size: int
    annotations: dict[str, str] = field(default_factory=dict)
    platform: Platform | None = None

    @classmethod
    def parse(cls, value: object, what: str) -> Descriptor:
        """Return the descriptor in the decoded JSON `value`.  Raises `DataError`, which names `what`."""
        fields = Fields(value, what)
        platform = None
        if fields.value.get("platform") is not None:
            about = Fields(fields.value["platform"], f"{what}: platform")
            platform = Platform(about.text("os"), about.text("architecture"), about.text("variant", ""))
        return cls(
            media_type=fields.text("mediaType"),
            digest=parse_digest(fields.text("digest")),
            size=fields.integer("size"),
            annotations=fields.texts("annotations"),
            platform=platform,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the descriptor as it stands in JSON, without members that are empty."""
        result: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            result["annotations"] = self.annotations
        if self.platform:
            result["platform"] = {"architecture": self.platform.architecture, "os": self.platform.os}
            if self.platform.variant:
                result["platform"]["variant"] = self.platform.variant
        return result
