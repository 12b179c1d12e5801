"""What of a store is needed: from those who need an image to every blob that it consists of.

Whatever cannot be read makes the answer uncertain, and then there is no answer: every function here raises, naming the
file and what to do about it.  That something is *missing* is no doubt: the name of an image that is not here keeps
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from shed.errors import DataError, NotFoundError, ShedError
from shed.images import refs
from shed.images.annotations import BootAnnotations
from shed.images.bootkit.kit import read_kit
from shed.images.pins import Pin
from shed.oci import media
from shed.oci.digest import Digest, is_digest, short
from shed.oci.leases import Leased
from shed.oci.manifest import Index, Manifest
from shed.oci.store import LayoutStore


@dataclass(slots=True)
class Reachable:
    """What is needed."""

    manifests: set[Digest] = field(default_factory=set)
    """Manifests, and indexes of them, that are needed, whether or not they are here."""
    blobs: set[Digest] = field(default_factory=set)
    """All blobs that are needed, the manifests among them."""


def reachable(store: LayoutStore, leased: Leased, pins: Iterable[Pin], configured: Mapping[str, str]) -> Reachable:
    """Return what of `store` is needed by `leased`, `pins`, the tags, the kit, and the references that are `configured`, by their keys.

    Raises `DataError`, also when the manifest of a strict pin is gone.
    """
    result = Reachable(blobs=set(leased.blobs))
    leases = [Pin(digest, "an image being added or read", "wait for that to end") for digest in leased.images]
    for pin in (*leases, *pins, *_tags(store), *_configured(store, configured)):
        if pin.digest not in result.manifests:
            result.manifests.add(pin.digest)
            result.blobs |= _needs(store, pin)
    if kit := read_kit(store):
        result.blobs |= {kit.kernel, kit.initrd, kit.runtime}
    _add_indexes(store, result)
    return result


def blobs_of(digest: Digest, manifest: Manifest) -> set[Digest]:
    """Return all blobs of the image, its manifest `digest` too.

    Raises `DataError` for annotations that are not valid.
    """
    return all_blobs(digest, manifest, BootAnnotations.parse(manifest.annotations))


def all_blobs(digest: Digest, manifest: Manifest, annotations: BootAnnotations) -> set[Digest]:
    """Return all blobs of the image whose manifest is `digest`, and whose annotations are decoded."""
    return {digest, manifest.config.digest, *(layer.digest for layer in manifest.layers), *annotations.blobs().values()}


def _tags(store: LayoutStore) -> Iterable[Pin]:
    for name in store.tag_names():
        if tag := store.tag(name):
            yield Pin(tag.digest, f"image {name!r}", f"get it again, or remove it: shed image rm {name}")


def _configured(store: LayoutStore, configured: Mapping[str, str]) -> Iterable[Pin]:
    for key, reference in configured.items():
        digest = Digest(reference) if is_digest(reference) else refs.recorded(store, reference)
        if digest is not None:
            yield Pin(digest, f"{reference}, which {key} names", f"get it again: shed image pull {reference}")


def _needs(store: LayoutStore, pin: Pin) -> set[Digest]:
    try:
        return blobs_of(pin.digest, store.read_manifest(pin.digest))
    except NotFoundError as error:
        if not pin.strict:
            return {pin.digest}
        raise DataError(f"{error.message}, but {pin.holder} needs it", code="IMAGE_DAMAGED", hint=pin.hint) from None
    except ShedError as error:
        message = f"cannot tell what {pin.holder} needs: {error.message} ({store.blob_path(pin.digest)})"
        code = error.code if isinstance(error, DataError) else "IMAGE_DAMAGED"
        raise DataError(message, code=code, hint=pin.hint) from None


def _add_indexes(store: LayoutStore, result: Reachable) -> None:
    """Add indexes that other tools have put into the store, as far as they list an image that is needed, with all they list."""
    for entry in store.index().manifests:
        if entry.media_type == media.INDEX and store.has(entry.digest):
            what = f"image index {store.blob_path(entry.digest)}"
            listed = Index.parse(store.read_bytes(entry.digest, what=what), what)
            if any(manifest.digest in result.manifests for manifest in listed.manifests):
                result.manifests.add(entry.digest)
                result.blobs.add(entry.digest)
                for manifest in listed.manifests:
                    pin = Pin(
                        manifest.digest,
                        f"image index {short(entry.digest)}",
                        "remove that file, or copy the image in again",
                    )
                    result.manifests.add(pin.digest)
                    result.blobs |= _needs(store, pin)
