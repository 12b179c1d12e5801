"""Having an image here before it is needed: what `create` does with a name, and what the pull policy has to say."""

from __future__ import annotations

from shed.config.server import Settings
from shed.errors import NotFoundError, ShedError
from shed.images import refs
from shed.images.find import find
from shed.images.pull import pull_image
from shed.oci.digest import Digest
from shed.oci.store import LayoutStore
from shed.progress import Progress, Stop


def ensure(store: LayoutStore, name: str, settings: Settings, *, progress: Progress, stop: Stop | None = None) -> Digest:
    """Return the manifest digest of the image that `name` means, pulling it when the policy of `settings` says so.

    What was built or named here goes first.  Else what an alias stands for, or `name` itself, is a reference of a registry: it was pulled
    before, or is pulled now; an alias that stands for another reference than before is pulled anew.  With ``always`` the registry is asked
    each time, with ``never`` not at all.  Raises `NotFoundError` (IMAGE_NOT_FOUND) and all that `pull_image` raises.
    """
    reference = settings.reference(name)
    if not is_remote(reference):
        return find(store, name).digest
    local = _here(store, name)
    came_from_registry = any(digest == local for _, digest in refs.all_references(store))
    if local is not None and not came_from_registry:
        return local
    pulled = refs.lookup(store, reference)
    if settings.pull_policy == "never":
        if pulled is not None:
            return pulled
        raise NotFoundError(
            f"image not present locally and pull_policy=never: {reference}", code="IMAGE_NOT_FOUND", hint=f"shed image pull {reference}"
        )
    if pulled is not None and settings.pull_policy == "missing":
        return pulled
    tag = name if reference != name else None
    try:
        return pull_image(
            store, reference, tag=tag, take_tag=came_from_registry, concurrency=settings.pull_concurrency, progress=progress, stop=stop
        ).digest
    except ShedError as error:
        if reference != name:  # the user never wrote this reference, so it takes a word of explanation
            error.message = f"there is no image called {name!r} here, and it could not be pulled: {error.message}"
            error.hint = f"{error.hint}; or make one: shed image build -n {name}" if error.hint else f"make one: shed image build -n {name}"
        raise


def is_remote(reference: str) -> bool:
    """Tell whether `reference` can only be an image of a registry: a bare name is one of the store."""
    return "/" in reference or ":" in reference.removeprefix("sha256:")


def _here(store: LayoutStore, name: str) -> Digest | None:
    try:
        return find(store, name).digest
    except NotFoundError:
        return None
