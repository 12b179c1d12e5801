"""The pull policy: whether an image that is asked for by name is used as it is here, or pulled first.

Also the pulling of all images that the configuration names, before anybody asks for one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shed.config.configured import configured_images, is_remote
from shed.config.server import Settings
from shed.errors import NotFoundError, ShedError, UsageError
from shed.images import references, trust
from shed.images.pull import PullResult, pull_image
from shed.images.references import find_image
from shed.oci.digest import Digest
from shed.oci.registry.reference import parse_reference
from shed.oci.store import LayoutStore
from shed.progress import Progress, Stop


@dataclass(frozen=True, slots=True)
class Pulled:
    """One image of the configuration that was pulled."""

    name: str
    """What it is called here; empty when another image has that name."""
    reference: str
    result: PullResult


def find_or_pull(
    store: LayoutStore, name: str, settings: Settings, *, progress: Progress, stop: Stop | None = None
) -> Digest:
    """Return the manifest digest of the image that `name` means, pulling it when the policy of `settings` says so.

    What was built or named here goes first.  Else what an alias stands for, or `name` itself, is a reference of a
    registry: it was pulled before, or is pulled now; an alias that stands for another version than before is pulled
    anew.  With ``always`` the registry is asked each time, with ``never`` not at all.  The kernel of an image that the
    configuration names is trusted.  Raises `NotFoundError` (IMAGE_NOT_FOUND) and all that `pull_image` raises.
    """
    digest = _find_or_pull(store, name, settings, progress=progress, stop=stop)
    _trust_configured(store, settings.reference(name), digest, settings)
    return digest


def pull_all_configured(
    store: LayoutStore, settings: Settings, *, variant: str | None = None, progress: Callable[[], Progress]
) -> list[Pulled]:
    """Pull what `settings` names and is not here, each reference once, and return what was pulled.

    With `variant`, pull that alias alone.  With the pull policy ``always``, registries are asked for newer images of
    those that are here, too.  Names of the local store are left out.  `progress` is called once for each image.  The
    first failure ends it, as the `ShedError` it is; what was pulled before stays.  Raises `UsageError` for an unknown
    variant.
    """
    pulled = []
    for alias, reference in _wanted(settings, variant).items():
        if settings.pull_policy != "always" and references.lookup(store, reference) is not None:
            continue
        result = pull_configured(store, alias, reference, settings, progress=progress())
        pulled.append(Pulled(result.tag, reference, result))
    return pulled


def pull_configured(
    store: LayoutStore,
    alias: str | None,
    reference: str,
    settings: Settings,
    *,
    progress: Progress,
    stop: Stop | None = None,
) -> PullResult:
    """Pull `reference` and call it `alias`, or by the last part of its path.

    A name that means something else here goes on to do so.
    """
    tag = alias or parse_reference(reference).image_name()
    there = _here(store, tag)
    pulled = pull_image(
        store,
        reference,
        tag=tag,
        take_tag=there is None or _came_from(store, there, reference),
        concurrency=settings.pull_concurrency,
        progress=progress,
        stop=stop,
    )
    _trust_configured(store, reference, pulled.digest, settings)
    return pulled


def _find_or_pull(
    store: LayoutStore, name: str, settings: Settings, *, progress: Progress, stop: Stop | None = None
) -> Digest:
    """As `find_or_pull`, without trusting anything."""
    reference = settings.reference(name)
    if not is_remote(reference):
        return find_image(store, name).digest
    local = _here(store, name)
    if local is not None and not _came_from(store, local, reference):
        return local
    pulled = references.lookup(store, reference)
    if settings.pull_policy == "never" and pulled is None:
        raise NotFoundError(
            f"image not present locally and pull_policy=never: {reference}",
            code="IMAGE_NOT_FOUND",
            hint=f"shed image pull {reference}",
        )
    if settings.pull_policy != "always" and pulled is not None:
        return pulled
    alias = name if reference != name else None
    try:
        return pull_configured(store, alias, reference, settings, progress=progress, stop=stop).digest
    except ShedError as error:
        if alias:  # the user never wrote this reference, so it takes a word of explanation
            error.message = f"there is no image called {name!r} here, and it could not be pulled: {error.message}"
            error.hint = "; or ".join(filter(None, (error.hint, f"make one: shed image build -n {name}")))
        raise


def _trust_configured(store: LayoutStore, reference: str, digest: Digest, settings: Settings) -> None:
    """Trust the kernel of an image that was pulled by a reference which the configuration names."""
    if reference in configured_images(settings).values() and digest == references.lookup(store, reference):
        trust.add_image(store, digest, f"the configuration names {reference}")


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


def _here(store: LayoutStore, name: str) -> Digest | None:
    try:
        return find_image(store, name).digest
    except NotFoundError:
        return None


def _came_from(store: LayoutStore, digest: Digest, reference: str) -> bool:
    """Tell whether the image was pulled from the repository of `reference`, in this version or another."""
    repository = parse_reference(reference).name
    return any(
        found == digest and parse_reference(pulled).name == repository
        for pulled, found in references.all_references(store)
    )
