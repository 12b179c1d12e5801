"""What an image's config tells of how it was made, step by step, and its names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shed.images.find import find
from shed.names import check_image_name
from shed.oci import media
from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest
from shed.oci.store import LayoutStore


@dataclass(frozen=True, slots=True)
class Step:
    """One step in which an image was made."""

    created: str
    """RFC 3339; empty when it is not told."""
    created_by: str
    comment: str
    layer: str
    """The digest of the layer it made; empty when it made none."""
    size_bytes: int
    """Of that layer, as it is stored or would be."""


def image_history(store: LayoutStore, reference: str) -> list[Step]:
    """Return the steps that made the image `reference`, the last one first, as container tools show them.

    Layers that the history does not tell of are steps of their own.  Raises `NotFoundError`, and `DataError` for a
    damaged image.
    """
    manifest = store.read_manifest(find(store, reference).digest)
    told = store.read_config(manifest).raw.get("history")
    layers = iter(manifest.layers)
    steps = []
    for entry in told if isinstance(told, list) else []:
        fields = entry if isinstance(entry, dict) else {}
        layer = None if fields.get("empty_layer") is True else next(layers, None)
        steps.append(_step(fields, layer))
    steps += [_step({}, layer) for layer in layers]
    return steps[::-1]


def _step(fields: dict[str, Any], layer: Descriptor | None) -> Step:
    created, created_by, comment = (
        value if isinstance(value := fields.get(key), str) else "" for key in ("created", "created_by", "comment")
    )
    return Step(created, created_by, comment, layer.digest if layer else "", layer.size if layer else 0)


def tag_image(store: LayoutStore, source: str, name: str) -> Digest:
    """Make `name` a name of the image `source` and return its digest.

    An image that was called so stays, without that name.

    Raises `UsageError` (INVALID_IMAGE_NAME), `NotFoundError` (IMAGE_NOT_FOUND), and `DataError` for a damaged image.
    """
    check_image_name(name)
    digest = find(store, source).digest
    with store.lease() as lease:
        lease.image(digest)
        platform = store.read_config(store.read_manifest(digest)).platform
        store.publish(Descriptor(media.MANIFEST, digest, store.size(digest), platform=platform), name)
    return digest
