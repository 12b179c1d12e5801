"""Which image the pinned tools are taken from: what ``--build-tools-version`` means."""

from __future__ import annotations

import re

from shed.errors import UsageError
from shed.version import VERSION, release_tag

REGISTRY_NAME = "ghcr.io/charliek/shed-build-tools"
"""Where releases are published."""
LOCAL_NAME = "shed-build-tools"
"""What is made on this machine, which no registry has."""
DEVELOPMENT = f"{LOCAL_NAME}:dev"
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*")


def build_tools_reference(wanted: str | None, *, version: str = VERSION) -> str:
    """Return the reference of the image that `wanted` means.

    What has a ``/`` or a ``:`` is a reference already; ``X.Y.Z``, with or without ``v``, is a release; any other word
    is a tag of this machine's own image.  None is the release of this `version` of shed, and in a development build
    this machine's `DEVELOPMENT`. Raises `UsageError`.
    """
    if wanted is None:
        tag = release_tag(version)
        return f"{REGISTRY_NAME}:{tag}" if tag else DEVELOPMENT
    if not _REFERENCE.fullmatch(wanted):
        raise UsageError(
            f"invalid build tools version {wanted!r}",
            hint="use a release such as v0.5.2, a local tag, or an image reference",
        )
    if "/" in wanted or ":" in wanted:
        return wanted
    tag = release_tag(wanted)
    return f"{REGISTRY_NAME}:{tag}" if tag else f"{LOCAL_NAME}:{wanted}"
