"""Which builder builds: the one asked for, or the first that works on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shed.errors import UnavailableError, UsageError
from shed.images.builders.base import Builder
from shed.images.builders.buildah import Buildah
from shed.images.builders.docker import Docker
from shed.images.builders.podman import Podman

BUILDERS: tuple[Builder, ...] = (Docker(), Podman(), Buildah())
"""In the order in which they are tried."""
_NEXT_STEP = {
    "docker": "install docker and start its engine",
    "podman": "install the package podman",
    "buildah": "install the package buildah",
}


def choose_builder(name: str | None = None, *, builders: Sequence[Builder] = BUILDERS) -> Builder:
    """Return the builder called `name`, or the first that works.

    Raises `UsageError` for a name that there is not, and `UnavailableError` (NO_BUILDER) with every reason when none
    works.
    """
    if name is not None:
        builders = [builder for builder in builders if builder.name == name]
        if not builders:
            raise UsageError(
                f"there is no builder {name!r}", hint=f"choose one of {', '.join(builder.name for builder in BUILDERS)}"
            )
    reasons: dict[str, str] = {}
    for builder in builders:
        reason = builder.probe()
        if reason is None:
            return builder
        reasons[builder.name] = reason
    raise _none_works(reasons)


def _none_works(reasons: Mapping[str, str]) -> UnavailableError:
    told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    steps = ", or ".join(_NEXT_STEP[name] for name in reasons)
    if len(reasons) == 1:
        return UnavailableError(f"cannot build with {told}", code="NO_BUILDER", hint=steps)
    hint = f"{steps}; or build elsewhere and use --from-oci-archive"
    return UnavailableError(f"no image builder works on this machine: {told}", code="NO_BUILDER", hint=hint)
