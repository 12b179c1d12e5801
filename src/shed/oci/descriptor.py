"""Descriptors: what one OCI document says about a blob, and the platform it is for."""

from __future__ import annotations

import platform as host
from dataclasses import dataclass, field, replace
from typing import Any

from shed.errors import UsageError
from shed.oci.digest import Digest, parse_digest
from shed.oci.fields import Fields
from shed.text import visible

_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "armhf": "arm",
    "armel": "arm",
}
"""Other names of processors, in small letters, and what OCI calls them."""
_MAX_FEATURES = 64
_FAR = 1000
_FIRST_VARIANTS = {"amd64": 1, "arm64": 8, "arm": 7}
"""The variant that is meant where none is named."""


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system and a processor, as in ``linux/amd64`` or ``linux/arm64/v8``."""

    os: str
    architecture: str
    variant: str = ""
    features: tuple[str, ...] = ()
    """What the operating system must be able to do (``os.features``): no ordinary image names any."""

    def __str__(self) -> str:
        """As above, and visible, whatever the document that it is from says."""
        name = "/".join(part for part in (self.os, self.architecture, self.variant) if part)
        return visible(f"{name} with {', '.join(self.features)}" if self.features else name)

    def matches(self, other: Platform) -> bool:
        """Tell whether an image for this platform runs on `other`.

        Where `other` names a variant, a lower one runs there, too, and a higher one does not.
        """
        if (self.os, self.architecture) != (other.os, other.architecture) or not set(self.features) <= {
            *other.features
        }:
            return False
        mine, theirs = self.level, other.level
        if not other.variant or self.variant == other.variant:
            return True
        return mine is not None and theirs is not None and mine <= theirs

    def distance(self, other: Platform) -> int:
        """Return how far this one, which matches `other`, is from it: variants down, or up if `other` names none."""
        mine, theirs = self.level, other.level
        if mine is None or theirs is None:
            return 0 if self.variant == other.variant else _FAR
        return abs(theirs - mine)

    @property
    def level(self) -> int | None:
        """The number of the variant: 2 of ``v2``; None when it has none."""
        if not self.variant:
            return _FIRST_VARIANTS.get(self.architecture, 0)
        digits = self.variant.removeprefix("v")
        return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 4 else None

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Return the platform that `text` names: ``os/architecture[/variant]``.  Raises `UsageError`."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise UsageError(f"invalid platform {text!r}", hint="write it as linux/amd64 or linux/arm64")
        return cls.named(*parts)

    @classmethod
    def named(cls, os: str, architecture: str, variant: str = "") -> Platform:
        """Return the platform of these names, under the names that OCI has for them: ``x86_64`` is ``amd64``."""
        name = architecture.lower()
        return cls(os.lower(), _ARCHITECTURES.get(name, name), variant.lower() or ("v6" if name == "armel" else ""))

    @classmethod
    def of_document(cls, fields: Fields) -> Platform | None:
        """Return the platform in the members of a document, None when they do not name a processor.

        Without an operating system it is Linux, as for Docker.  Raises `DataError`.
        """
        features = fields.items("os.features", _MAX_FEATURES) if fields.value.get("os.features") else []
        if not all(isinstance(feature, str) for feature in features):
            raise fields.wrong("os.features", "a list of strings")
        os, architecture = fields.text("os", ""), fields.text("architecture", "")
        named = cls.named(os or "linux", architecture, fields.text("variant", ""))
        return replace(named, features=tuple(features)) if architecture else None

    @classmethod
    def of_host(cls) -> Platform:
        """Return the Linux platform that this machine's virtual machines run."""
        return cls.named("linux", host.machine())


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A typed, sized pointer to a blob."""

    media_type: str
    digest: Digest
    size: int
    annotations: dict[str, str] = field(default_factory=dict)
    platform: Platform | None = None
    artifact_type: str = ""
    """Of a manifest that is something else than an image, and says so."""

    @classmethod
    def parse(cls, value: object, what: str) -> Descriptor:
        """Return the descriptor in the decoded JSON `value`.  Raises `DataError`, which names `what`."""
        fields = Fields(value, what)
        platform = None
        if fields.value.get("platform") is not None:
            about = Fields(fields.value["platform"], f"{what}: platform")
            platform = Platform.of_document(about)
        return cls(
            media_type=fields.text("mediaType"),
            digest=parse_digest(fields.text("digest")),
            size=fields.integer("size"),
            annotations=fields.texts("annotations"),
            platform=platform,
            artifact_type=fields.text("artifactType", ""),
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
            if self.platform.features:
                result["platform"]["os.features"] = list(self.platform.features)
        if self.artifact_type:
            result["artifactType"] = self.artifact_type
        return result
