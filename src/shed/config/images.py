"""Settings of images: aliases, the default, and when to pull.

A name is looked up in the local store first, so images that were built or tagged here come before configured ones.
"""

from __future__ import annotations

import re

from shed.errors import UsageError
from shed.names import check_image_name
from shed.version import VERSION, release_tag

VARIANTS = ("base", "extensions", "full")
"""The images whose recipes come with shed, in the order in which they build on each other."""
PULL_POLICIES = ("missing", "always", "never")
_TOKEN = "${shed.version}"  # noqa: S105  no password
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]*", re.ASCII)
_LONGEST = 512


def reference(value: object, *, version: str = VERSION) -> str:
    """Return the name or reference of an image, with ``${shed.version}`` replaced by the tag of this release.

    Raises `ValueError`, also for ``${shed.version}`` in a development build, which has no tag.
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
    """Return aliases and the references that they stand for.  Raises `ValueError`."""
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
    """Return when `create` pulls; the default is ``missing``.  Raises `ValueError`."""
    if value in (None, ""):
        return PULL_POLICIES[0]
    if value not in PULL_POLICIES:
        raise ValueError(f'invalid pull_policy "{value}" (want one of: {", ".join(PULL_POLICIES)})')
    return str(value)
