"""How an image lies in a registry: an index of the image manifest and, beside it, a manifest of what the image boots from.

The image manifest names kernel, initrd, runtime and root by annotation alone, where neither a registry's garbage
collector nor a tool that copies images would see them.  The boot manifest lists them as layers.  It is marked as build
attestations are, so that whoever pulls a platform passes it over:
https://docs.docker.com/build/metadata/attestations/attestation-storage/.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shed.images.annotations import BootAnnotations
from shed.oci import media
from shed.oci.descriptor import Descriptor, Platform
from shed.oci.digest import Digest, digest_bytes
from shed.oci.fields import encode_object
from shed.oci.manifest import Index

BOOT_TYPE = "application/vnd.shed.boot.v1+json"
"""The artifact type of a boot manifest."""
EMPTY_CONFIG = b"{}"
"""The config of a manifest that needs none, from the OCI image specification."""
_LAYER_TYPES = {
    "kernel": "application/vnd.shed.kernel",
    "initrd": "application/vnd.shed.initrd",
    "runtime erofs": "application/vnd.shed.runtime.erofs",
    "rootfs erofs": "application/vnd.shed.rootfs.erofs",
}
_NOWHERE = Platform("unknown", "unknown")


def boot_manifest(annotations: BootAnnotations, sizes: Mapping[Digest, int]) -> bytes:
    """Return the boot manifest for the blobs that `annotations` name, whose `sizes` are in bytes."""
    layers = [Descriptor(_LAYER_TYPES[what], digest, sizes[digest]) for what, digest in annotations.blobs().items()]
    value: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media.MANIFEST,
        "artifactType": BOOT_TYPE,
        "config": Descriptor(media.EMPTY, digest_bytes(EMPTY_CONFIG), len(EMPTY_CONFIG)).to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    return encode_object(value)


def tag_index(image: Descriptor, boot: bytes) -> bytes:
    """Return the index for a tag: the image manifest, and the boot manifest `boot` that belongs to it."""
    marks = {"vnd.docker.reference.type": "shed-boot", "vnd.docker.reference.digest": image.digest}
    return Index((image, Descriptor(media.MANIFEST, digest_bytes(boot), len(boot), marks, _NOWHERE))).encode()
