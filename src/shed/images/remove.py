"""Taking an image's names away.  Its blobs stay until a prune finds that nobody needs them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shed.errors import ConflictError, DataError, NotFoundError
from shed.images import refs
from shed.images.find import all_tags, find
from shed.images.pins import Pin
from shed.oci.digest import short
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


def remove_image(store: LayoutStore, name: str, pins: Iterable[Pin], configured: Mapping[str, str]) -> Removed:
    """Remove the tag `name`, or, when `name` is a reference or a digest, all names of that image.

    With its last tag its references go too.

    Raises `ConflictError` (IMAGE_IN_USE) when one of `pins` needs the image, and `NotFoundError`.
    """
    try:
        found = find(store, name)
    except DataError:
        if name not in store.tag_names():
            raise
        store.untag(name)  # damaged, so nobody can say what it meant
        return Removed("", [name], [], _warnings(configured, {name}))
    users = sorted({pin.holder for pin in pins if pin.digest == found.digest})
    if users:
        raise ConflictError(
            f"image {name!r} ({short(found.digest)}) is in use by {', '.join(users)}",
            code="IMAGE_IN_USE",
            hint="delete what uses it first",
        )
    tags = [tag for tag, digest in all_tags(store) if digest == found.digest]
    gone = [name] if name in tags else tags
    for tag in gone:
        with contextlib.suppress(NotFoundError):  # it was removed, or given to another image, meanwhile
            store.untag(tag, digest=found.digest)
    references = refs.forget(store, found.digest) if gone == tags else []
    return Removed(found.digest, gone, references, _warnings(configured, {name, found.digest, *gone, *references}))


def _warnings(configured: Mapping[str, str], names: set[str]) -> list[str]:
    named = {key: value for key, value in configured.items() if value in names or refs.canonical(value) in names}
    return [f"{key} in the server's configuration names {value}" for key, value in named.items()]
