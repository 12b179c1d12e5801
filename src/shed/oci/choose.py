"""Which image of an archive is meant: attestations are left out, and the platform decides among the rest."""

from __future__ import annotations

from dataclasses import dataclass

from shed.errors import DataError, UsageError
from shed.oci import media
from shed.oci.archive import Archive, read_blob, read_index
from shed.oci.descriptor import Descriptor, Platform
from shed.oci.digest import Digest
from shed.oci.manifest import ImageConfig, Index, Manifest

_ATTESTATION = "vnd.docker.reference.type"
"""Annotation that buildx gives to manifests that only say something about an image."""
_MAX_DEPTH = 4
"""Of indexes within indexes."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """One image of an archive: its manifest's digest there, the manifest, and the config with its bytes."""

    digest: Digest
    manifest: Manifest
    config: ImageConfig
    config_bytes: bytes


def choose_image(archive: Archive, platform: Platform | None = None) -> Chosen:
    """Return the image for `platform`; without one, the only image, or else the one for this machine.

    Raises `DataError` when there is no image in the archive, `UsageError` when it has none or several that fit.
    """
    found = _manifests(archive, read_index(archive), set(), _MAX_DEPTH)
    if not found:
        raise DataError(f"{archive.name} holds no image")
    if len(found) == 1 and platform is None:
        return _read(archive, found[0])
    wanted = platform or Platform.of_host()
    stated = [(entry.platform or _read(archive, entry).config.platform, entry) for entry in found]
    fitting = [entry for its_platform, entry in stated if its_platform.matches(wanted)]
    if not fitting:
        there = ", ".join(sorted({str(its_platform) for its_platform, _ in stated}))
        raise UsageError(
            f"{archive.name} holds no image for {wanted}, only for {there}", code="PLATFORM_NOT_FOUND", hint="choose one with --platform"
        )
    if len(fitting) > 1:
        hint = "copy one into an archive of its own: skopeo copy oci-archive:FILE:TAG oci-archive:NEW.tar"
        raise UsageError(f"{archive.name} holds {len(fitting)} images for {wanted}", hint=hint)
    chosen = _read(archive, fitting[0])
    if not chosen.config.platform.matches(wanted):
        raise DataError(f"{archive.name}: the index promises {wanted}, the config says {chosen.config.platform}")
    return chosen


def _manifests(archive: Archive, index: Index, seen: set[Digest], depth: int) -> list[Descriptor]:
    found = []
    for entry in index.manifests:
        nowhere = entry.platform and "unknown" in (entry.platform.os, entry.platform.architecture)
        if entry.digest in seen or _ATTESTATION in entry.annotations or nowhere:
            continue
        seen.add(entry.digest)
        if entry.media_type == media.MANIFEST:
            found.append(entry)
        elif entry.media_type == media.INDEX:
            if not depth:
                raise DataError(f"{archive.name}: its indexes are nested too deeply")
            found += _manifests(archive, Index.parse(read_blob(archive, entry, "image index")), seen, depth - 1)
    return found


def _read(archive: Archive, entry: Descriptor) -> Chosen:
    manifest = Manifest.parse(read_blob(archive, entry, "image manifest"), f"image manifest of {archive.name}")
    if manifest.config.media_type != media.CONFIG:
        raise DataError(f"{archive.name}: the config has the media type {manifest.config.media_type!r}: this is not a container image")
    for number, layer in enumerate(manifest.layers, 1):
        if layer.media_type not in media.LAYERS:
            raise DataError(f"{archive.name}: layer {number} has the unsupported media type {layer.media_type!r}")
    data = read_blob(archive, manifest.config, "image config")
    config = ImageConfig.parse(data, f"image config of {archive.name}")
    if len(config.diff_ids) != len(manifest.layers):
        raise DataError(f"{archive.name}: the config lists {len(config.diff_ids)} layers, the manifest {len(manifest.layers)}")
    return Chosen(entry.digest, manifest, config, data)
