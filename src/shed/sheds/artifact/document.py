"""A snapshot as an OCI artifact: its manifest and its config.

The disk is cut into chunks of one size.  A chunk of zeros is left out; every other one is a blob of its own, so that a
registry has each once, and a second push sends what has changed.

```
manifest   artifactType SNAPSHOT, config CONFIG, one layer for each different chunk, in the order of the disk
config     {"version": 1, "snapshot": {…}, "chunk_bytes": 1048576,
            "chunks": ["sha256:…", …],       digest of each layer, unpacked
            "places": [0, 1, 7, 1, …]}       number of a chunk of the disk, number of the layer that is there, …
```

Source: https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md, "Guidelines for Artifact Usage".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shed.errors import DataError
from shed.names import MAX_UPPER, MIN_UPPER
from shed.oci import media
from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest, parse_digest
from shed.oci.fields import Fields, decode_object
from shed.sheds.snapshotstore import Snapshot
from shed.text import visible

SNAPSHOT = "application/vnd.shed.snapshot.v1"
CONFIG = "application/vnd.shed.snapshot.config.v1+json"
CHUNK = "application/vnd.shed.disk.v1+zstd"
"""Media types: of the artifact, its config, and a chunk, which is one zstd frame."""
VERSION = 1
SMALLEST_CHUNK, MOST_CHUNKS = 1 << 20, 20_480
"""Chunks of a mebibyte, as long as the manifest of a disk that is full has less than the 4 MiB that registries take."""
_OVERHEAD = 1 << 12
"""Bytes that a chunk that cannot be compressed takes more than it has."""


def chunk_size(disk: int) -> int:
    """Return into how many bytes a disk of `disk` bytes is cut: the same for all snapshots of one shed."""
    size = SMALLEST_CHUNK
    while disk > size * MOST_CHUNKS:
        size *= 2
    return size


@dataclass(frozen=True, slots=True)
class Chunk:
    """A different piece of a disk: what it is unpacked, and the blob that it is packed."""

    content: Digest
    blob: Descriptor


@dataclass(frozen=True, slots=True)
class Artifact:
    """A snapshot, cut into chunks."""

    snapshot: Snapshot
    chunk_bytes: int
    chunks: tuple[Chunk, ...]
    places: tuple[tuple[int, int], ...]
    """(number of a piece of the disk, index in `chunks`), in the order of the disk."""

    def length(self, number: int) -> int:
        """Return how many bytes the piece `number` of the disk has; the last one may have fewer than the others."""
        return min(self.chunk_bytes, self.snapshot.size_bytes - number * self.chunk_bytes)

    def config(self) -> bytes:
        """Return the config; equal artifacts give equal bytes."""
        snapshot = self.snapshot
        return _compact(
            {
                "version": VERSION,
                "snapshot": {
                    "backend": snapshot.backend,
                    "source_shed": snapshot.source_shed,
                    "source_image": snapshot.source_image,
                    "created_at": snapshot.created_at,
                    "lower_digest": snapshot.lower_digest,
                    "size_bytes": snapshot.size_bytes,
                    "comment": snapshot.comment,
                    "egress": list(snapshot.egress or ()),
                },
                "chunk_bytes": self.chunk_bytes,
                "chunks": [chunk.content for chunk in self.chunks],
                "places": [value for place in self.places for value in place],
            }
        )

    def manifest(self, config: Descriptor) -> bytes:
        """Return the manifest of the artifact whose config is `config`."""
        return _compact(
            {
                "schemaVersion": 2,
                "mediaType": media.MANIFEST,
                "artifactType": SNAPSHOT,
                "config": config.to_json(),
                "layers": [chunk.blob.to_json() for chunk in self.chunks],
            }
        )


@dataclass(frozen=True, slots=True)
class Manifest:
    """The manifest of a snapshot, whose config is still to be read."""

    config: Descriptor
    layers: tuple[Descriptor, ...]

    @classmethod
    def parse(cls, data: bytes, what: str) -> Manifest:
        """Return the manifest in `data`; `what` names it.  Raises `DataError` (NO_SNAPSHOT) for an image's."""
        fields = Fields(decode_object(data, what), what)
        kind = fields.text("artifactType", "")
        if "manifests" in fields.value or "config" not in fields.value or kind != SNAPSHOT:
            raise DataError(
                f"{what} is not of a snapshot, but of {visible(kind) if kind else 'an image'}",
                code="NO_SNAPSHOT",
                hint="an image is pulled by: shed image pull REFERENCE",
            )
        config = Descriptor.parse(fields.object("config"), f"{what}: config")
        if config.media_type != CONFIG:
            raise DataError(f"{what}: its config is {visible(config.media_type)}, and not {CONFIG}")
        layers = tuple(
            Descriptor.parse(layer, f"{what}: layer {number}")
            for number, layer in enumerate(fields.items("layers", MOST_CHUNKS), 1)
        )
        return cls(config, layers)

    def artifact(self, config: bytes, what: str) -> Artifact:
        """Return what `config`, whose digest is the right one, says of the snapshot.

        All numbers are checked: each chunk lies within the disk, and no two have one place.  Raises `DataError`.
        """
        fields = Fields(decode_object(config, what), what)
        if fields.integer("version") != VERSION:
            raise DataError(
                f"{what} has version {fields.value['version']!r}, not {VERSION}", hint="use the shed that has made it"
            )
        snapshot = _snapshot(Fields(fields.object("snapshot"), f"{what}: snapshot"))
        size = fields.integer("chunk_bytes")
        if size != chunk_size(snapshot.size_bytes):
            raise DataError(f"{what}: a disk of {snapshot.size_bytes} bytes is not cut into chunks of {size}")
        contents = [parse_digest(each) for each in fields.items("chunks", MOST_CHUNKS)]
        if len(contents) != len(self.layers):
            raise DataError(f"{what} names {len(contents)} chunks, and its manifest {len(self.layers)}")
        for layer in self.layers:
            if layer.media_type != CHUNK or layer.size > size + _OVERHEAD:
                raise DataError(f"{what}: {layer.digest} is no chunk of {size} bytes")
        chunks = tuple(Chunk(content, blob) for content, blob in zip(contents, self.layers, strict=True))
        count = -(-snapshot.size_bytes // size)
        flat = fields.items("places", 2 * MOST_CHUNKS)
        places = list(zip(flat[::2], flat[1::2], strict=False))
        last = -1
        for number, index in places:
            if type(number) is not int or type(index) is not int or not (last < number < count):
                raise DataError(f"{what}: the places of its chunks are not in order, or not on the disk")
            if not 0 <= index < len(chunks):
                raise DataError(f"{what}: there is no chunk {index}")
            last = number
        if len(flat) % 2 or {index for _, index in places} != set(range(len(chunks))):
            raise DataError(f"{what}: the places of its chunks are not complete")
        return Artifact(snapshot, size, chunks, tuple(places))


def _snapshot(fields: Fields) -> Snapshot:
    """Return the record that travels with a disk, without a name: that is given where it arrives."""
    size = fields.integer("size_bytes")
    if not MIN_UPPER <= size <= MAX_UPPER:
        raise fields.wrong("size_bytes", "the size of a writable layer")
    egress = fields.items("egress", 100) if fields.value.get("egress") else []
    if not all(isinstance(each, str) for each in egress):
        raise fields.wrong("egress", "a list of names")
    texts = {
        key: visible(fields.text(key, ""))[:1000]
        for key in ("backend", "source_shed", "source_image", "created_at", "comment")
    }
    return Snapshot(
        name="",
        lower_digest=parse_digest(fields.text("lower_digest")),
        size_bytes=size,
        egress=tuple(egress) or None,
        memory=None,
        **texts,
    )


def _compact(value: dict[str, Any]) -> bytes:
    """Return JSON without blanks: a full disk's documents are some megabytes, and registries have limits."""
    import json  # noqa: PLC0415

    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
