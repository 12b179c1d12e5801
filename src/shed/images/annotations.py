"""What makes an OCI image a shed image: the annotations of its manifest, ``io.shed.*``.

They name the blobs that a host needs to boot the image; docs and names: `docs/image-format.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shed.errors import DataError
from shed.oci.digest import Digest, parse_digest

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
