"""Choosing an image of an archive or a registry: without attestations, by platform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from shed.errors import DataError, UsageError
from shed.oci import media
from shed.oci.archive import read_blob, read_index
from shed.oci.content import Archive
from shed.oci.descriptor import Descriptor, Platform
from shed.oci.digest import Digest
from shed.oci.fields import Fields, decode_object
from shed.oci.manifest import CONTAINERD_NAME, MAX_DOCUMENTS, REF_NAME, ImageConfig, Index, Manifest

_ATTESTATION = "vnd.docker.reference.type"
"""Annotation that buildx gives to manifests that only say something about an image."""
_MAX_DEPTH = 4
"""Of indexes within indexes."""


class Documents(Protocol):
    """Where indexes, manifests and configs are read from."""

    name: str
    """For messages."""

    def read(self, descriptor: Descriptor, what: str) -> bytes:
        """Return a small blob, verified.  Raises `DataError`, which names `what`."""
        ...


@dataclass(frozen=True, slots=True)
class SelectedImage:
    """One image: its manifest's digest where it was found, the manifest, the config, and the bytes of both."""

    digest: Digest
    manifest: Manifest
    config: ImageConfig
    config_bytes: bytes
    manifest_bytes: bytes


def select_image(archive: Archive, platform: Platform | None = None) -> SelectedImage:
    """Return the image of an archive, as `select_from` does."""
    return select_from(_InArchive(archive), list(_by_name(read_index(archive)).values()), platform)


def select_named(archive: Archive) -> list[tuple[str, SelectedImage]]:
    """Return all images of an archive with their names, empty for those without one, in its order.

    Of several images under one name, the one for this machine is returned.  Raises `DataError` when there is no image
    in the archive.
    """
    source = _InArchive(archive)
    named = _by_name(read_index(archive))
    known: dict[tuple[tuple[Digest, int, str], ...], SelectedImage | None] = {}
    found = []
    for (name, *_), index in named.items():
        same = tuple(
            (entry.digest, entry.size, str(entry.platform)) for entry in index.manifests
        )  # an image may have thousands of names
        if same not in known:
            images = any(_is_image(source, entry) for entry in _manifests(source, index, set(), _MAX_DEPTH))
            known[same] = select_from(source, [index]) if images else None
        if (image := known[same]) is not None:
            found.append((name, image))
    if not found:
        raise DataError(f"{archive.name} holds no image")
    return found


def select_from(source: Documents, images: Sequence[Index], platform: Platform | None = None) -> SelectedImage:
    """Return the image for `platform` among `images`; each index lists what there is of one image.

    Without a platform, the only image, or else the one for this machine.  An index may have several that fit: the one
    with the highest variant that `platform` allows is taken, with the lowest one if it names none, and the first of
    those, as containerd does; they may differ in their compression.

    Raises `DataError` when there is no image, `UsageError` when none fits, or several different ones.
    """
    seen: set[Digest] = set()  # of all images together: what is listed again is read once
    listed = [_manifests(source, index, seen, _MAX_DEPTH) for index in images]
    entries = {entry.digest: entry for those in listed for entry in those}
    if not entries:
        raise DataError(f"{source.name} holds no image")
    if len(entries) == 1 and platform is None:
        return _read(source, *entries.values())
    platforms = {
        digest: entry.platform or _read(source, entry).config.platform
        for digest, entry in entries.items()
        if entry.platform or _is_image(source, entry)
    }
    if len(platforms) == 1 and platform is None:
        return _read(source, *(entries[digest] for digest in platforms))
    wanted = platform or Platform.of_host()
    chosen: dict[Digest, SelectedImage] = {}
    for those in listed:
        fitting = [entry for entry in those if entry.digest in platforms and platforms[entry.digest].matches(wanted)]
        fitting.sort(key=lambda entry: platforms[entry.digest].distance(wanted))
        best = next((entry for entry in fitting if _is_image(source, entry)), None)
        if best is not None:
            image = _read(source, best)
            chosen.setdefault(image.manifest.config.digest, image)
    if not chosen:
        for digest, entry in entries.items():
            if platforms.get(digest, wanted).matches(wanted):
                return _read(source, entry)  # which says what it is, or that it is an image that refers to another
        there = ", ".join(sorted({str(its_platform) for its_platform in platforms.values()}))
        raise UsageError(
            f"{source.name} holds no image for {wanted}, only for {there}",
            code="PLATFORM_NOT_FOUND",
            hint="choose one with --platform",
        )
    if len(chosen) > 1:
        hint = "copy one into an archive of its own: skopeo copy oci-archive:FILE:TAG oci-archive:NEW.tar"
        raise UsageError(f"{source.name} holds {len(chosen)} images for {wanted}", hint=hint)
    (image,) = chosen.values()
    if not image.config.platform.matches(wanted):
        raise DataError(f"{source.name}: the index promises {wanted}, the config says {image.config.platform}")
    return image


class _InArchive:
    """The documents of an archive, each read once, whatever its index says how often."""

    def __init__(self, archive: Archive) -> None:
        self.name = archive.name
        self._archive = archive
        self._known: dict[tuple[Digest, int], bytes] = {}
        self._left = MAX_DOCUMENTS

    def read(self, descriptor: Descriptor, what: str) -> bytes:
        key = descriptor.digest, descriptor.size
        if key not in self._known:
            self._known[key] = read_blob(self._archive, descriptor, what)
            self._left -= len(self._known[key])
            if self._left < 0:
                raise DataError(
                    f"{self.name}: its manifests and configs have more than {MAX_DOCUMENTS >> 20} MiB",
                    code="IMAGE_TOO_LARGE",
                )
        return self._known[key]


def _manifests(source: Documents, index: Index, seen: set[Digest], depth: int) -> list[Descriptor]:
    found = []
    for entry in index.manifests:
        if entry.digest in seen or _says_no_image(entry):
            continue
        seen.add(entry.digest)
        if entry.media_type == media.MANIFEST:
            found.append(entry)
        elif entry.media_type == media.INDEX:
            if not depth:
                raise DataError(f"{source.name}: its indexes are nested too deeply")
            found += _manifests(source, Index.parse(source.read(entry, "image index")), seen, depth - 1)
    return found


def _by_name(index: Index) -> dict[tuple[str, str, int], Index]:
    """Return the images of an archive: all entries of a name are one image, and so is each entry without a name."""
    groups: dict[tuple[str, str, int], list[Descriptor]] = {}
    for number, entry in enumerate(index.manifests, 1):
        if not _says_no_image(entry):
            name, full = entry.annotations.get(REF_NAME, ""), entry.annotations.get(CONTAINERD_NAME, "")
            groups.setdefault((name, full, 0 if name or full else number), []).append(entry)
    return {key: Index(tuple(entries)) for key, entries in groups.items()}


def _says_no_image(entry: Descriptor) -> bool:
    """Tell whether an entry of an index says itself that it is something else: an attestation, an index of SOCI."""
    nowhere = entry.platform is not None and "unknown" in (entry.platform.os, entry.platform.architecture)
    return nowhere or entry.artifact_type not in media.CONFIGS or _ATTESTATION in entry.annotations


def _is_image(source: Documents, entry: Descriptor) -> bool:
    """Tell whether a manifest is of an image, and not of something that refers to one or is like one."""
    data = source.read(entry, "image manifest")
    fields = Fields(decode_object(data, "image manifest"), "image manifest")
    config = fields.value.get("config")
    kinds = fields.text("artifactType", ""), config.get("mediaType") if isinstance(config, dict) else None
    if fields.value.get("subject") is not None or any(str(kind or "") not in media.CONFIGS for kind in kinds):
        return False
    return all(layer.media_type in media.LAYERS for layer in Manifest.parse(data).layers)


def _read(source: Documents, entry: Descriptor) -> SelectedImage:
    manifest_bytes = source.read(entry, "image manifest")
    manifest = Manifest.parse(manifest_bytes, f"image manifest of {source.name}")
    if manifest.config.media_type != media.CONFIG:
        raise DataError(
            f"{source.name}: the config has the media type {manifest.config.media_type!r}: this is not a container "
            "image"
        )
    for number, layer in enumerate(manifest.layers, 1):
        if layer.media_type not in media.LAYERS:
            raise DataError(f"{source.name}: layer {number} has the unsupported media type {layer.media_type!r}")
    data = source.read(manifest.config, "image config")
    config = ImageConfig.parse(data, f"image config of {source.name}")
    if len(config.diff_ids) != len(manifest.layers):
        raise DataError(
            f"{source.name}: the config lists {len(config.diff_ids)} layers, the manifest {len(manifest.layers)}"
        )
    return SelectedImage(entry.digest, manifest, config, data, manifest_bytes)
