"""Listing images, and showing what is known of one and how it was made.

What is damaged is listed with a warning; the list does not fail because of it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shed.errors import DataError, NotFoundError, ShedError
from shed.images import references
from shed.images.annotations import BootAnnotations, all_blobs, boot_blobs
from shed.images.pins import Pin
from shed.images.references import all_tags, find_image
from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest
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
    references: list[str] = field(default_factory=list)
    """What it was pulled by."""
    in_use: list[str] = field(default_factory=list)
    """Who needs it, for example ``shed 'dev'``."""
    source: str = "user"
    """``config`` when the server's configuration names it, ``dangling`` when nothing does and nobody needs it, else
    ``user``.
    """


def list_images(
    store: LayoutStore, pins: Iterable[Pin] = (), configured: Mapping[str, str] | None = None
) -> list[ImageInfo]:
    """Return all images: tags by name, then images without one by digest.

    `pins` and `configured` say who needs them.
    """
    look = _Look(store, pins, (configured or {}).values())
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
        result.append(look.info(name, tag.digest, tag.updated_at))
    untagged: set[Digest] = set()
    with contextlib.suppress(DataError):  # a damaged index.json hides only images without a tag
        untagged = {entry.digest for entry in store.index().manifests} - tagged
    return result + [look.info("", digest, "") for digest in sorted(untagged)]


def inspect_image(
    store: LayoutStore, reference: str, pins: Iterable[Pin] = (), configured: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return all that is known of the image `reference`.

    Raises `NotFoundError`, and `DataError` when its manifest is damaged.
    """
    found = find_image(store, reference)
    manifest = store.read_manifest(found.digest)
    annotations = BootAnnotations.parse(manifest.annotations)
    info = _Look(store, pins, (configured or {}).values()).info(found.name, found.digest, "")
    names = [name for name, digest in all_tags(store) if digest == found.digest]
    boot = {what: {"digest": digest, **_on_disk(store, digest)} for what, digest in annotations.blobs().items()}
    layers = [
        {
            "digest": layer.digest,
            "media_type": layer.media_type,
            "size_bytes": layer.size,
            "present": store.has(layer.digest),
        }
        for layer in manifest.layers
    ]
    config: dict[str, Any] = {}
    with contextlib.suppress(NotFoundError, DataError):
        parsed = store.read_config(manifest)
        config = {"platform": str(parsed.platform), "created": parsed.raw.get("created"), "config": parsed.settings}
    return {
        "name": found.name,
        "names": names,
        "references": info.references,
        "digest": found.digest,
        "source": info.source,
        "in_use": info.in_use,
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
    manifest = store.read_manifest(find_image(store, reference).digest)
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


class _Look:
    """One look at a store, which is asked for all its blobs and references only once."""

    def __init__(self, store: LayoutStore, pins: Iterable[Pin], configured: Iterable[str]) -> None:
        self._store = store
        self._blobs: dict[Digest, os.stat_result] = store.inventory()
        self._configured = {name for reference in configured for name in (reference, references.canonical(reference))}
        self._references: dict[Digest, list[str]] = {}
        for reference, digest in references.all_references(store):
            self._references.setdefault(digest, []).append(reference)
        self._users: dict[Digest, list[str]] = {}
        for pin in pins:
            self._users.setdefault(pin.digest, []).append(pin.holder)

    def info(self, name: str, digest: Digest, updated_at: str) -> ImageInfo:
        """Return what is known of an image."""
        references, users = self._references.get(digest, []), sorted(self._users.get(digest, []))
        source = "user" if name or users else "dangling"
        if self._configured & {name, digest, *references}:
            source = "config"
        try:
            manifest = self._store.read_manifest(digest)
            annotations = BootAnnotations.parse(manifest.annotations)
            blobs = all_blobs(digest, manifest, annotations)
        except ShedError as error:
            return ImageInfo(name, digest, "", 0, "", False, updated_at, error.message, references, users, source)
        full = all(layer.digest in self._blobs for layer in manifest.layers)
        warning = self._problem(digest, annotations)
        return ImageInfo(
            name=name,
            digest=digest,
            source_ref=annotations.source_ref,
            size_bytes=sum(self._blobs[blob].st_size for blob in blobs if blob in self._blobs),
            layers="full" if full else "boot-only",
            bootable=not warning,
            updated_at=updated_at,
            warning=warning,
            references=references,
            in_use=users,
            source=source,
        )

    def _problem(self, digest: Digest, annotations: BootAnnotations) -> str:
        """Return why the image cannot be booted, as far as a quick look tells; empty when it can."""
        try:
            blobs = boot_blobs(digest, annotations)
        except DataError as error:
            return error.message
        missing = [what for what, blob in blobs.items() if blob not in self._blobs]
        return f"missing from the local store: {', '.join(missing)}" if missing else ""


def _on_disk(store: LayoutStore, digest: str) -> dict[str, Any]:
    try:
        return {"size_bytes": store.size(digest), "path": str(store.blob_path(digest))}
    except NotFoundError:
        return {"size_bytes": None, "path": None}
