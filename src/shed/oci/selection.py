"""Choosing an image of an archive or a registry: without attestations, by platform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from shed.errors import DataError, UsageError
from shed.oci import media
from shed.oci.archive import read_blob, read_index
from shed.oci.content import Archive
from shed.oci.descriptor import Descriptor, Platform
from shed.oci.digest import Digest
from shed.oci.manifest import MAX_DOCUMENTS, REF_NAME, ImageConfig, Index, Manifest

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
    return select_from(_InArchive(archive), read_index(archive), platform)


def select_named(archive: Archive) -> list[tuple[str, SelectedImage]]:
    """Return all images of an archive with their names, empty for those without one, in its order.

    Of several images under one name, the one for this machine is returned.  Raises `DataError` when there is no image
    in the archive.
    """
    groups: dict[tuple[str, int], list[Descriptor]] = {}
    for number, entry in enumerate(read_index(archive).manifests, 1):
        if not _is_no_image(entry):
            name = entry.annotations.get(REF_NAME, "")
            groups.setdefault((name, 0 if name else number), []).append(entry)
    if not groups:
        raise DataError(f"{archive.name} holds no image")
    source = _InArchive(archive)
    known: dict[tuple[tuple[Digest, int, str], ...], SelectedImage] = {}
    found = []
    for (name, _), entries in groups.items():
        same = tuple(
            (entry.digest, entry.size, str(entry.platform)) for entry in entries
        )  # an image may have thousands of names
        if same not in known:
            known[same] = select_from(source, Index(tuple(entries)))
        found.append((name, known[same]))
    return found


def select_from(source: Documents, index: Index, platform: Platform | None = None) -> SelectedImage:
    """Return the image for `platform` among those of `index`.

    Without one, the only image, or else the one for this machine.

    Raises `DataError` when there is no image in the index, `UsageError` when it has none or several that fit.
    """
    found = _manifests(source, index, set(), _MAX_DEPTH)
    if not found:
        raise DataError(f"{source.name} holds no image")
    if len(found) == 1 and platform is None:
        return _read(source, found[0])
    wanted = platform or Platform.of_host()
    stated = [(entry.platform or _read(source, entry).config.platform, entry) for entry in found]
    fitting = [entry for its_platform, entry in stated if its_platform.matches(wanted)]
    if not fitting:
        there = ", ".join(sorted({str(its_platform) for its_platform, _ in stated}))
        raise UsageError(
            f"{source.name} holds no image for {wanted}, only for {there}",
            code="PLATFORM_NOT_FOUND",
            hint="choose one with --platform",
        )
    if len(fitting) > 1:
        hint = "copy one into an archive of its own: skopeo copy oci-archive:FILE:TAG oci-archive:NEW.tar"
        raise UsageError(f"{source.name} holds {len(fitting)} images for {wanted}", hint=hint)
    chosen = _read(source, fitting[0])
    if not chosen.config.platform.matches(wanted):
        raise DataError(f"{source.name}: the index promises {wanted}, the config says {chosen.config.platform}")
    return chosen


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
        if entry.digest in seen or _is_no_image(entry):
            continue
        seen.add(entry.digest)
        if entry.media_type == media.MANIFEST:
            found.append(entry)
        elif entry.media_type == media.INDEX:
            if not depth:
                raise DataError(f"{source.name}: its indexes are nested too deeply")
            found += _manifests(source, Index.parse(source.read(entry, "image index")), seen, depth - 1)
    return found


def _is_no_image(entry: Descriptor) -> bool:
    nowhere = entry.platform is not None and "unknown" in (entry.platform.os, entry.platform.architecture)
    return nowhere or _ATTESTATION in entry.annotations


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
