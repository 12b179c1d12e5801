"""Media types: those of OCI, others that mean the same, and the compressions of layers."""

from __future__ import annotations

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"

EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
UNTYPED = "application/octet-stream"

_SAME = {
    DOCKER_INDEX: INDEX,
    DOCKER_MANIFEST: MANIFEST,
    DOCKER_CONFIG: CONFIG,
    "application/vnd.docker.image.rootfs.diff.tar": LAYER,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": LAYER_GZIP,
    "application/vnd.docker.image.rootfs.diff.tar.zstd": LAYER_ZSTD,
    # layers that may not be given away, or only by their maker: tars as others are, where they are
    "application/vnd.docker.image.rootfs.foreign.diff.tar": LAYER,
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": LAYER_GZIP,
    "application/vnd.docker.image.rootfs.foreign.diff.tar.zstd": LAYER_ZSTD,
    "application/vnd.oci.image.layer.nondistributable.v1.tar": LAYER,
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": LAYER_GZIP,
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": LAYER_ZSTD,
}
CONFIGS = frozenset({CONFIG, DOCKER_CONFIG, UNTYPED, ""})
"""Of configs of images, also where nothing is said; not that all of them are."""
LAYERS = frozenset({LAYER, LAYER_GZIP, LAYER_ZSTD})


def canonical(media_type: str) -> str:
    """Return OCI's usual name of a media type that means the same, and every other one as it is."""
    return _SAME.get(media_type, media_type)
