"""The version of shed."""

from __future__ import annotations

VERSION = "0.5.2"
"""``X.Y.Z`` for a release, ``X.Y.Z.devN`` between releases."""


def release_tag(version: str = VERSION) -> str | None:
    """Return the tag of images and tools of this version (``vX.Y.Z``); None for a development build."""
    parts = version.removeprefix("v").split(".")
    if len(parts) == 3 and all(part.isascii() and part.isdigit() for part in parts):
        return "v" + ".".join(parts)
    return None
