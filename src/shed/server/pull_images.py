"""``shed-server pull-images``: the images that the configuration names, pulled before anybody waits for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shed.config.server import Settings, is_remote
from shed.errors import UsageError
from shed.images.ensure import pull_configured
from shed.images.pull import PullResult
from shed.images.refs import lookup
from shed.oci.store import LayoutStore
from shed.progress import Event, Progress


@dataclass(frozen=True, slots=True)
class Pulled:
    """One image that was pulled: its name here (empty when another image has it), its reference, and what that took."""

    name: str
    reference: str
    result: PullResult


def pull_images(
    store: LayoutStore, settings: Settings, *, variant: str | None = None, sink: Callable[[Event], None] | None = None
) -> list[Pulled]:
    """Pull what `settings` names and is not here, each reference once.

    With `variant` that alias alone, and return what was pulled.

    With the pull policy ``always``, registries are asked for newer images of those that are here, too.  Names of the
    local store are left out.  The first failure ends it, as the `ShedError` it is; what was pulled before stays.
    Raises `UsageError` for an unknown variant.
    """
    pulled = []
    for alias, reference in _wanted(settings, variant).items():
        if settings.pull_policy != "always" and lookup(store, reference) is not None:
            continue
        progress = Progress(sink) if sink else Progress()
        result = pull_configured(store, alias, reference, settings, progress=progress)
        pulled.append(Pulled(result.tag, reference, result))
    return pulled


def _wanted(settings: Settings, variant: str | None) -> dict[str | None, str]:
    """Return references by the name to give each, None where it is to be called by the last part of its path."""
    aliases = {name: reference for name, reference in settings.image_aliases.items() if is_remote(reference)}
    if variant is not None:
        if variant not in aliases:
            known = ", ".join(sorted(aliases)) or "none"
            raise UsageError(
                f"the configuration has no image {variant!r}", hint=f"its image_aliases that can be pulled: {known}"
            )
        return {variant: aliases[variant]}
    default = settings.reference(settings.default_image)
    wanted: dict[str | None, str] = dict(aliases.items())
    if is_remote(default) and default not in wanted.values():
        wanted[None] = default
    return wanted
