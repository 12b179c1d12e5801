"""The names of images: giving one, and taking names away.  Blobs stay until a prune finds that nobody needs them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shed.errors import ConflictError, DataError, NotFoundError
from shed.images import references
from shed.images.pins import Pin
from shed.images.references import all_tags, find_image
from shed.names import check_image_name
from shed.oci import media
from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest, short
from shed.oci.store import LayoutStore


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed."""

    digest: str
    """Of the manifest; empty when the tag's file was damaged."""
    tags: list[str]
    references: list[str]
    warnings: list[str]
    """What will be different from now on."""


def tag_image(store: LayoutStore, source: str, name: str) -> Digest:
    """Make `name` a name of the image `source` and return its digest.

    An image that was called so stays, without that name.

    Raises `UsageError` (INVALID_IMAGE_NAME), `NotFoundError` (IMAGE_NOT_FOUND), and `DataError` for a damaged image.
    """
    check_image_name(name)
    digest = find_image(store, source).digest
    with store.lease() as lease:
        lease.image(digest)
        platform = store.read_config(store.read_manifest(digest)).platform
        store.publish(Descriptor(media.MANIFEST, digest, store.size(digest), platform=platform), name)
    return digest


def remove_image(store: LayoutStore, name: str, pins: Iterable[Pin], configured: Mapping[str, str]) -> Removed:
    """Remove the tag `name`, or, when `name` is a reference or a digest, all names of that image.

    With its last tag its references go too.

    Raises `ConflictError` (IMAGE_IN_USE) when one of `pins` needs the image and it would have no name any more, and
    `NotFoundError`.
    """
    try:
        found = find_image(store, name)
    except DataError:
        if name not in store.tag_names():
            raise
        store.untag(name)  # damaged, so nobody can say what it meant
        return Removed("", [name], [], _warnings(configured, {name}))
    tags = [tag for tag, digest in all_tags(store) if digest == found.digest]
    gone = [name] if name in tags else tags
    users = sorted({pin.holder for pin in pins if pin.digest == found.digest}) if gone == tags else []
    if users:
        raise ConflictError(
            f"image {name!r} ({short(found.digest)}) is in use by {', '.join(users)}",
            code="IMAGE_IN_USE",
            hint="delete what uses it first",
        )
    for tag in gone:
        with contextlib.suppress(NotFoundError):  # it was removed, or given to another image, meanwhile
            store.untag(tag, digest=found.digest)
    forgotten = references.forget(store, found.digest) if gone == tags else []
    return Removed(found.digest, gone, forgotten, _warnings(configured, {name, found.digest, *gone, *forgotten}))


def _warnings(configured: Mapping[str, str], names: set[str]) -> list[str]:
    named = {key: value for key, value in configured.items() if value in names or references.canonical(value) in names}
    return [f"{key} in the server's configuration names {value}" for key, value in named.items()]
