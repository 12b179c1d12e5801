"""Which images a server knows by configuration: aliases, the default, and when to pull.

A name is looked for in the local store first, so what was built or tagged here goes before what is configured.
"""

from __future__ import annotations

import re

from shed.errors import UsageError
from shed.names import check_image_name
from shed.version import VERSION, release_tag

REGISTRY_PREFIX = "ghcr.io/charliek/shed-qemu-"
"""What the references of the published images start with; behind it come the variant and ``:vX.Y.Z``."""
VARIANTS = ("base", "extensions", "full")
PULL_POLICIES = ("missing", "always", "never")
_TOKEN = "${shed.version}"  # noqa: S105  no password
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]*", re.ASCII)
_LONGEST = 512


def published_images(version: str = VERSION) -> dict[str, str]:
    """Return the aliases of a release build that has none configured.

    For a development build no images are published: it has none.
    """
    tag = release_tag(version)
    return {variant: f"{REGISTRY_PREFIX}{variant}:{tag}" for variant in VARIANTS} if tag else {}


def reference(value: object, *, version: str = VERSION) -> str:
    """Return an image's name or reference, ``${shed.version}`` in it replaced by the tag of this release.

    Raises `ValueError`, also on a development build, which no tag belongs to.
    """
    if not isinstance(value, str) or not value:
        raise ValueError("must be the name or the reference of an image")
    found = value
    if _TOKEN in value:
        tag = release_tag(version)
        if tag is None:
            raise ValueError(
                f"{_TOKEN} stands for a release, and {version} is a development build: write the tag that you mean"
            )
        found = value.replace(_TOKEN, tag)
    if not _REFERENCE.fullmatch(found) or len(found) > _LONGEST:
        raise ValueError(f"{value!r} is not the name or the reference of an image")
    return found


def aliases(value: object) -> dict[str, str]:
    """Return names and the references they stand for."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError("must hold names and references")
    found = {}
    for name, target in value.items():
        try:
            found[check_image_name(str(name))] = reference(target)
        except (ValueError, UsageError) as error:
            raise ValueError(f"{name}: {error}") from None
    return found


def pull_policy(value: object) -> str:
    """Return when `create` pulls; nothing is ``missing``."""
    if value in (None, ""):
        return PULL_POLICIES[0]
    if value not in PULL_POLICIES:
        raise ValueError(f'invalid pull_policy "{value}" (want one of: {", ".join(PULL_POLICIES)})')
    return str(value)
