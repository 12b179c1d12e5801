"""The three documents of an OCI image: index, manifest, config."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

from shed.errors import DataError
from shed.oci import media
from shed.oci.descriptor import Descriptor, Platform
from shed.oci.digest import Digest, parse_digest
from shed.oci.fields import Fields, decode_object, encode_object

MAX_LAYERS = 512
"""Engines that stack layers take 128; others take more, and images of rpm-ostree have up to 499."""
MAX_MANIFESTS = 4096
MAX_DOCUMENTS = 256 << 20
"""Most bytes of all manifests and configs of an archive: thousands of images, none of which needs a megabyte."""
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
"""The file ``oci-layout`` of each layout."""
REF_NAME = "org.opencontainers.image.ref.name"
"""Annotation of a descriptor in ``index.json``: the tag."""
CONTAINERD_NAME = "io.containerd.image.name"
"""The same, of containerd and Docker: the whole reference, where the tag alone does not tell images apart."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image for one platform: a config and its layers, bottom first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes, what: str = "image manifest") -> Manifest:
        """Return the manifest in `data`; Docker's media types come out as OCI's.  Raises `DataError`."""
        fields = Fields(decode_object(data, what), what)
        if fields.value.get("schemaVersion") != 2:
            raise DataError(f"{what}: schemaVersion is {fields.value.get('schemaVersion')!r}, only 2 is supported")
        if "manifests" in fields.value:  # a document that is both would mean different things to different readers
            raise DataError(f"{what} is also an index")
        kind = fields.text("mediaType", media.MANIFEST)
        if media.canonical(kind) != media.MANIFEST:
            raise DataError(f"{what}: mediaType is {kind!r}, which is not an image manifest")
        config = _canonical(Descriptor.parse(fields.object("config"), f"{what}: config"))
        if config.media_type == media.UNTYPED:  # as in old registries of Docker
            config = replace(config, media_type=media.CONFIG)
        layers = [
            _canonical(Descriptor.parse(layer, f"{what}: layer {number}"))
            for number, layer in enumerate(fields.items("layers", MAX_LAYERS), 1)
        ]
        return cls(config, tuple(layers), fields.texts("annotations"))

    def encode(self) -> bytes:
        """Return the manifest as JSON; equal manifests give equal bytes."""
        value: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": media.MANIFEST,
            "config": self.config.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
        }
        if self.annotations:
            value["annotations"] = self.annotations
        return encode_object(value)


@dataclass(frozen=True, slots=True)
class Index:
    """A list of manifests: one image for several platforms, or all images of a layout."""

    manifests: tuple[Descriptor, ...] = ()

    @classmethod
    def parse(cls, data: bytes, what: str = "image index") -> Index:
        """Return the index in `data`.  Raises `DataError`."""
        fields = Fields(decode_object(data, what), what)
        if fields.value.get("schemaVersion", 0) not in (0, 2):
            raise DataError(f"{what}: schemaVersion is {fields.value['schemaVersion']!r}, only 2 is supported")
        if "layers" in fields.value or "config" in fields.value:
            raise DataError(f"{what} is also an image manifest")
        manifests = fields.items("manifests", MAX_MANIFESTS)
        return cls(
            tuple(
                _canonical(Descriptor.parse(entry, f"{what}: manifest {number}"))
                for number, entry in enumerate(manifests, 1)
            )
        )

    def with_tag(self, entry: Descriptor) -> Index:
        """Return the index with `entry` as the only one of its name.

        A manifest that had the name before stays listed.
        """
        kept = self.without_tag(entry.annotations[REF_NAME]).manifests
        others = (other for other in kept if other.digest != entry.digest or REF_NAME in other.annotations)
        return Index((*others, entry))

    def without_tag(self, name: str) -> Index:
        """Return the index without the name; its manifest stays listed."""
        named = {entry.digest for entry in self.manifests if entry.annotations.get(REF_NAME, name) != name}
        result: list[Descriptor] = []
        for entry in self.manifests:
            if entry.annotations.get(REF_NAME) != name:
                result.append(entry)
            elif entry.digest not in named:
                named.add(entry.digest)
                others = {key: value for key, value in entry.annotations.items() if key != REF_NAME}
                result.append(replace(entry, annotations=others))
        return Index(tuple(result))

    def without_manifests(self, digests: Collection[Digest]) -> Index:
        """Return the index without these manifests."""
        return Index(tuple(entry for entry in self.manifests if entry.digest not in digests))

    def encode(self) -> bytes:
        """Return the index as JSON."""
        return encode_object(
            {
                "schemaVersion": 2,
                "mediaType": media.INDEX,
                "manifests": [descriptor.to_json() for descriptor in self.manifests],
            }
        )


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What the config says that matters to us; `raw` is all of it."""

    platform: Platform
    diff_ids: tuple[Digest, ...]
    raw: dict[str, Any]

    @classmethod
    def parse(cls, data: bytes, what: str = "image config") -> ImageConfig:
        """Return the config in `data`.  Raises `DataError`."""
        fields = Fields(decode_object(data, what), what)
        rootfs = Fields(fields.object("rootfs"), f"{what}: rootfs")
        diff_ids = (
            tuple(parse_digest(item) for item in rootfs.items("diff_ids", MAX_LAYERS))
            if rootfs.value.get("diff_ids")
            else ()
        )
        os, architecture = fields.text("os", ""), fields.text("architecture", "")
        host = Platform.of_host()  # what is not said is this machine's, as for Docker
        platform = Platform.named(os or host.os, architecture or host.architecture, fields.text("variant", ""))
        settings = fields.value.get("config")
        if settings is not None and not isinstance(settings, dict):
            raise DataError(f"{what}: 'config' is not an object")
        return cls(platform, diff_ids, fields.value)

    @property
    def settings(self) -> dict[str, Any]:
        """The part that says how to run the image: User, Env, WorkingDir, and so on."""
        return self.raw.get("config") or {}


def _canonical(descriptor: Descriptor) -> Descriptor:
    kind = media.canonical(descriptor.media_type)
    return descriptor if kind == descriptor.media_type else replace(descriptor, media_type=kind)
