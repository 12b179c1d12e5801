"""What makes an OCI image a shed image: the annotations of its manifest, ``io.shed.*``, and the boot manifest.

The annotations name the blobs that a host needs to boot the image; docs and names: `docs/image-format.md`.  Neither a
registry's garbage collector nor a tool that copies images sees blobs that are named by annotation alone.  So in a
registry the tag is an index of the image manifest and, beside it, a boot manifest, which lists these blobs as layers.
That is marked as build attestations are, so that whoever pulls a platform passes it over:
https://docs.docker.com/build/metadata/attestations/attestation-storage/.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shed.errors import DataError
from shed.oci import media
from shed.oci.descriptor import Descriptor, Platform
from shed.oci.digest import Digest, digest_bytes, parse_digest, short
from shed.oci.fields import encode_object
from shed.oci.manifest import Index, Manifest

SCHEMA_VERSION = "1"
SCHEMA_KEY = "io.shed.schema-version"
VARIANT_KEY = "io.shed.variant"
SOURCE_REF_KEY = "io.shed.source-ref"
ROOT_KEY = "io.shed.rootfs.erofs.digest"
KERNEL_KEY = "io.shed.kernel.digest"
INITRD_KEY = "io.shed.initrd.digest"
RUNTIME_KEY = "io.shed.runtime.erofs.digest"
LOGICAL_SIZE_KEY = "io.shed.rootfs.logical-size"
SIZE_KEYS = {
    ROOT_KEY: "io.shed.rootfs.erofs.size",
    KERNEL_KEY: "io.shed.kernel.size",
    INITRD_KEY: "io.shed.initrd.size",
    RUNTIME_KEY: "io.shed.runtime.erofs.size",
}
"""What says how many bytes a blob has, by what names it; images of version 0.5.2 and before have none of them."""
BUILD_TOOLS_KEY = "io.shed.build-tools"
_MAX_DIGITS = 19


@dataclass(frozen=True, slots=True, kw_only=True)
class BootAnnotations:
    """The annotations, decoded; None and empty where there are none."""

    variant: str = ""
    """The name given to the build, for display."""
    source_ref: str = ""
    """The reference it was built for."""
    root: Digest | None = None
    """The root file system.  Required to boot."""
    kernel: Digest | None = None
    initrd: Digest | None = None
    runtime: Digest | None = None
    sizes: Mapping[Digest, int] = field(default_factory=dict)
    """Bytes of the blobs that are named, as far as the manifest says so."""
    logical_size: int | None = None
    """Bytes of the root's files, for display."""
    build_tools: str = ""
    """What wrote the root: name and version."""

    @classmethod
    def parse(cls, annotations: Mapping[str, str]) -> BootAnnotations:
        """Return what the manifest's `annotations` say.

        Raises `DataError` for a schema version, a digest or a blob's size that is not valid.
        """
        version = annotations.get(SCHEMA_KEY, SCHEMA_VERSION)
        if version != SCHEMA_VERSION:
            raise DataError(
                f"{SCHEMA_KEY} is {version!r}, only {SCHEMA_VERSION!r} is known", hint="use a newer shed for this image"
            )
        size = annotations.get(LOGICAL_SIZE_KEY, "")
        return cls(
            variant=annotations.get(VARIANT_KEY, ""),
            source_ref=annotations.get(SOURCE_REF_KEY, ""),
            root=_digest(annotations, ROOT_KEY),
            kernel=_digest(annotations, KERNEL_KEY),
            initrd=_digest(annotations, INITRD_KEY),
            runtime=_digest(annotations, RUNTIME_KEY),
            sizes=_sizes(annotations),
            logical_size=int(size) if size.isascii() and size.isdigit() and len(size) <= _MAX_DIGITS else None,
            build_tools=annotations.get(BUILD_TOOLS_KEY, ""),
        )

    def encode(self) -> dict[str, str]:
        """Return the annotations; optional ones that are empty are left out."""
        optional = {
            KERNEL_KEY: self.kernel,
            INITRD_KEY: self.initrd,
            RUNTIME_KEY: self.runtime,
            ROOT_KEY: self.root,
            LOGICAL_SIZE_KEY: None if self.logical_size is None else str(self.logical_size),
            BUILD_TOOLS_KEY: self.build_tools,
        }
        named = {ROOT_KEY: self.root, KERNEL_KEY: self.kernel, INITRD_KEY: self.initrd, RUNTIME_KEY: self.runtime}
        optional |= {
            SIZE_KEYS[key]: str(self.sizes[digest]) for key, digest in named.items() if digest and digest in self.sizes
        }
        always = {SCHEMA_KEY: SCHEMA_VERSION, VARIANT_KEY: self.variant, SOURCE_REF_KEY: self.source_ref}
        return always | {key: value for key, value in optional.items() if value}

    def blobs(self) -> dict[str, Digest]:
        """Return the blobs that are named, by what people call them."""
        named = {"kernel": self.kernel, "initrd": self.initrd, "runtime erofs": self.runtime, "rootfs erofs": self.root}
        return {name: digest for name, digest in named.items() if digest}


def boot_blobs(manifest: Digest, annotations: BootAnnotations) -> dict[str, Digest]:
    """Return the four blobs that booting needs, by what people call them.

    Raises `DataError` (NOT_BOOTABLE) when one is not named.
    """
    digest = short(manifest)
    blobs = annotations.blobs()
    if annotations.root is None:
        # Documented and searched for word by word; there is no fallback.
        raise DataError(
            f"image manifest {digest} lacks {ROOT_KEY} annotation (built with pre-v0.5.2 tooling). "
            f"Re-pull against current images: shed image rm {digest} && shed-server pull-images.",
            code="NOT_BOOTABLE",
        )
    for what in ("kernel", "initrd", "runtime erofs"):
        if what not in blobs:
            hint = (
                "it is of another implementation of shed; make one that boots here: shed image build -n NAME --from REF"
            )
            raise DataError(f"image manifest {digest} names no {what} blob", code="NOT_BOOTABLE", hint=hint)
    return blobs


def blobs_of(digest: Digest, manifest: Manifest) -> set[Digest]:
    """Return all blobs of the image, its manifest `digest` too.

    Raises `DataError` for annotations that are not valid.
    """
    return all_blobs(digest, manifest, BootAnnotations.parse(manifest.annotations))


def all_blobs(digest: Digest, manifest: Manifest, annotations: BootAnnotations) -> set[Digest]:
    """Return all blobs of the image whose manifest is `digest`, and whose annotations are decoded."""
    return {digest, manifest.config.digest, *(layer.digest for layer in manifest.layers), *annotations.blobs().values()}


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


def _digest(annotations: Mapping[str, str], key: str) -> Digest | None:
    text = annotations.get(key)
    if not text:
        return None
    try:
        return parse_digest(text)
    except DataError as error:
        raise DataError(f"{key}: {error.message}", hint=error.hint) from None


def _sizes(annotations: Mapping[str, str]) -> dict[Digest, int]:
    found: dict[Digest, int] = {}
    for key, size_key in SIZE_KEYS.items():
        digest, text = _digest(annotations, key), annotations.get(size_key)
        if digest is None or text is None:
            continue
        if not text.isascii() or not text.isdigit() or len(text) > _MAX_DIGITS:
            raise DataError(f"{size_key} is not a number of bytes: {text[:40]!r}")
        if found.setdefault(digest, int(text)) != int(text):
            raise DataError(
                f"{size_key} is {text}, but the same blob has {found[digest]} bytes elsewhere in the manifest"
            )
    return found
