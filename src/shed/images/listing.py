"""Listing images and showing what is known of one.  What is damaged is listed with a warning; nothing here fails because of it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from shed.errors import DataError, NotFoundError, ShedError
from shed.images.annotations import BootAnnotations
from shed.images.find import all_tags, find
from shed.images.resolve import boot_blobs
from shed.oci.digest import Digest
from shed.oci.manifest import Manifest
from shed.oci.store import LayoutStore


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """One line of `shed image ls`: a tag, or an image without one."""

    name: str
    """Empty for an image that no tag points at."""
    digest: str
    """Of the manifest; empty when the tag's file is damaged."""
    source_ref: str
    size_bytes: int
    """What its blobs take up, those it shares with other images too."""
    layers: str
    """``full``, or ``boot-only`` when layers are not here."""
    bootable: bool
    updated_at: str
    """RFC 3339; empty without a tag."""
    warning: str
    """What is wrong with it; empty when nothing is."""


def list_images(store: LayoutStore) -> list[ImageInfo]:
    """Return all images: tags by name, then images without one by digest."""
    result = []
    tagged = set()
    for name in store.tag_names():
        try:
            tag = store.tag(name)
        except ShedError as error:
            result.append(ImageInfo(name, "", "", 0, "", bootable=False, updated_at="", warning=error.message))
            continue
        if tag is None:  # removed while we looked
            continue
        tagged.add(tag.digest)
        result.append(_info(store, name, tag.digest, tag.updated_at))
    untagged: set[Digest] = set()
    with contextlib.suppress(DataError):  # a damaged index.json hides only images without a tag
        untagged = {entry.digest for entry in store.index().manifests} - tagged
    return result + [_info(store, "", digest, "") for digest in sorted(untagged)]


def inspect_image(store: LayoutStore, reference: str) -> dict[str, Any]:
    """Return all that is known of the image `reference`.  Raises `NotFoundError`, and `DataError` when its manifest is damaged."""
    found = find(store, reference)
    manifest = store.read_manifest(found.digest)
    annotations = BootAnnotations.parse(manifest.annotations)
    info = _info(store, found.name, found.digest, "")
    names = [name for name, digest in all_tags(store) if digest == found.digest]
    boot = {what: {"digest": digest, **_on_disk(store, digest)} for what, digest in annotations.blobs().items()}
    layers = [
        {"digest": layer.digest, "media_type": layer.media_type, "size_bytes": layer.size, "present": store.has(layer.digest)}
        for layer in manifest.layers
    ]
    config: dict[str, Any] = {}
    with contextlib.suppress(NotFoundError, DataError):
        parsed = store.read_config(manifest)
        config = {"platform": str(parsed.platform), "created": parsed.raw.get("created"), "config": parsed.settings}
    return {
        "name": found.name,
        "names": names,
        "digest": found.digest,
        "source_ref": annotations.source_ref,
        "variant": annotations.variant,
        "bootable": info.bootable,
        "size_bytes": info.size_bytes,
        "logical_size_bytes": annotations.logical_size,
        "build_tools": annotations.build_tools,
        **config,
        "boot_blobs": boot,
        "layers": layers,
        "annotations": manifest.annotations,
        "warning": info.warning,
    }


def _info(store: LayoutStore, name: str, digest: Digest, updated_at: str) -> ImageInfo:
    try:
        manifest = store.read_manifest(digest)
        annotations = BootAnnotations.parse(manifest.annotations)
    except ShedError as error:
        return ImageInfo(name, digest, "", 0, "", bootable=False, updated_at=updated_at, warning=error.message)
    full = all(store.has(layer.digest) for layer in manifest.layers)
    warning = _problem(store, digest, annotations)
    return ImageInfo(
        name=name,
        digest=digest,
        source_ref=annotations.source_ref,
        size_bytes=_size(store, digest, manifest, annotations),
        layers="full" if full else "boot-only",
        bootable=not warning,
        updated_at=updated_at,
        warning=warning,
    )


def _problem(store: LayoutStore, digest: Digest, annotations: BootAnnotations) -> str:
    """Return why the image cannot be booted, as far as a quick look tells; empty when it can."""
    try:
        blobs = boot_blobs(digest, annotations)
    except DataError as error:
        return error.message
    missing = [what for what, blob in blobs.items() if not store.has(blob)]
    return f"missing from the local store: {', '.join(missing)}" if missing else ""


def _size(store: LayoutStore, digest: Digest, manifest: Manifest, annotations: BootAnnotations) -> int:
    blobs = {digest, manifest.config.digest, *(layer.digest for layer in manifest.layers), *annotations.blobs().values()}
    return sum(_on_disk(store, blob)["size_bytes"] or 0 for blob in blobs)


def _on_disk(store: LayoutStore, digest: str) -> dict[str, Any]:
    try:
        return {"size_bytes": store.size(digest), "path": str(store.blob_path(digest))}
    except NotFoundError:
        return {"size_bytes": None, "path": None}
