"""A snapshot as an OCI artifact: its manifest and its config.

The disk is cut into chunks of one size.  A chunk of zeros is left out; every other one is a blob of its own, so that a
registry has each once, and a second push sends what has changed.

```
manifest   artifactType SNAPSHOT, config CONFIG, one layer for each different chunk, in the order of the disk
config     {"version": 1, "snapshot": {…}, "chunk_bytes": 1048576,
            "chunks": ["sha256:…", …],       digest of each layer, unpacked
            "places": [0, 1, 7, 1, …]}       number of a chunk of the disk, number of the layer that is there, …
```

With memory the version is 2, and there is one member more:

```
"memory": {"cpus": 2, "memory_mb": 2048,
           "files": [{"name": "memory/state", "size_bytes": 1234, "places": [0, 8, …]}, …]}
```

Source: https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md, "Guidelines for Artifact Usage".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from shed.backends.interface import OF_THIS_HOST, Shape
from shed.errors import DataError
from shed.names import MAX_CPUS, MAX_MEMORY_MB, MAX_UPPER, MIN_UPPER
from shed.oci import media
from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest, parse_digest
from shed.oci.fields import Fields, decode_object
from shed.sheds.snapshotstore import MEMORY, UPPER, Snapshot
from shed.text import visible

SNAPSHOT = "application/vnd.shed.snapshot.v1"
CONFIG = "application/vnd.shed.snapshot.config.v1+json"
CHUNK = "application/vnd.shed.disk.v1+zstd"
"""Media types: of the artifact, its config, and a chunk, which is one zstd frame."""
VERSION, WITH_MEMORY = 1, 2
SMALLEST_CHUNK, MOST_CHUNKS = 1 << 20, 20_480
"""Chunks of a mebibyte, as long as the manifest of a disk that is full has less than the 4 MiB that registries take."""
_OVERHEAD = 1 << 12
"""Bytes that a chunk that cannot be compressed takes more than it has."""
_MOST_FILES, _BESIDE_MEMORY = 8, 1 << 30
"""Files that are memory, and bytes that they have more than the memory itself."""
_FILE = re.compile(rf"{MEMORY}/[a-z][a-z.]{{0,30}}(?<!{re.escape(OF_THIS_HOST)})")


def chunk_size(*files: int) -> int:
    """Return into how many bytes files of so many bytes are cut: the same for all snapshots of one shed."""
    size = SMALLEST_CHUNK
    while sum(-(-file // size) for file in files) > MOST_CHUNKS:
        size *= 2
    return size


@dataclass(frozen=True, slots=True)
class Chunk:
    """A different piece of a disk: what it is unpacked, and the blob that it is packed."""

    content: Digest
    blob: Descriptor


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a snapshot: the disk, or one of its memory."""

    name: str
    """Relative to the folder of the snapshot."""
    size_bytes: int
    chunk_bytes: int
    places: tuple[tuple[int, int], ...]
    """(number of a piece of the file, index in the artifact's chunks), in the order of the file."""

    def length(self, number: int) -> int:
        """Return how many bytes the piece `number` has; the last one may have fewer than the others."""
        return min(self.chunk_bytes, self.size_bytes - number * self.chunk_bytes)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A snapshot, cut into chunks."""

    snapshot: Snapshot
    chunks: tuple[Chunk, ...]
    disk: Part
    memory: tuple[Part, ...] = ()
    """What goes with the `memory` of the snapshot."""

    def config(self) -> bytes:
        """Return the config; equal artifacts give equal bytes."""
        snapshot = self.snapshot
        return _compact(
            {
                "version": WITH_MEMORY if self.memory else VERSION,
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
                "chunk_bytes": self.disk.chunk_bytes,
                "chunks": [chunk.content for chunk in self.chunks],
                "places": _flat(self.disk),
                **self._memory(),
            }
        )

    def _memory(self) -> dict[str, Any]:
        shape = self.snapshot.memory
        if shape is None:
            return {}
        files = [{"name": part.name, "size_bytes": part.size_bytes, "places": _flat(part)} for part in self.memory]
        return {"memory": {"cpus": shape.cpus, "memory_mb": shape.memory_mb, "files": files}}

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
        if (version := fields.integer("version")) not in {VERSION, WITH_MEMORY}:
            raise DataError(
                f"{what} has version {version}, not {VERSION} or {WITH_MEMORY}", hint="use the shed that has made it"
            )
        memory = Fields(fields.object("memory"), f"{what}: memory") if version == WITH_MEMORY else None
        snapshot = _snapshot(Fields(fields.object("snapshot"), f"{what}: snapshot"), memory)
        files = [(UPPER, snapshot.size_bytes, fields), *(_files(memory, what) if memory else ())]
        size = fields.integer("chunk_bytes")
        if size != chunk_size(*(length for _, length, _ in files)):
            raise DataError(f"{what}: a disk of {snapshot.size_bytes} bytes is not cut into chunks of {size}")
        contents = [parse_digest(each) for each in fields.items("chunks", MOST_CHUNKS)]
        if len(contents) != len(self.layers):
            raise DataError(f"{what} names {len(contents)} chunks, and its manifest {len(self.layers)}")
        for layer in self.layers:
            if layer.media_type != CHUNK or layer.size > size + _OVERHEAD:
                raise DataError(f"{what}: {layer.digest} is no chunk of {size} bytes")
        chunks = tuple(Chunk(content, blob) for content, blob in zip(contents, self.layers, strict=True))
        parts = [Part(name, length, size, _places(said, length, size, what)) for name, length, said in files]
        if {index for part in parts for _, index in part.places} != set(range(len(chunks))):
            raise DataError(f"{what}: the places of its chunks are not complete")
        return Artifact(snapshot, chunks, parts[0], tuple(parts[1:]))


def _files(memory: Fields, what: str) -> Iterable[tuple[str, int, Fields]]:
    """Yield name, size and fields of each file that is `memory`.  Raises `DataError`."""
    names: set[str] = set()
    left = (memory.integer("memory_mb") << 20) + _BESIDE_MEMORY
    for value in memory.items("files", _MOST_FILES):
        if not isinstance(value, dict):
            raise memory.wrong("files", "a list of files")
        fields = Fields(value, f"{what}: a file of its memory")
        name, size = fields.text("name"), fields.integer("size_bytes")
        if not _FILE.fullmatch(name) or name in names:
            raise fields.wrong("name", "that of another file of memory")
        if not 0 <= size <= left:
            raise fields.wrong("size_bytes", "the size of a file of memory")
        names.add(name)
        left -= size
        yield name, size, fields
    if not names:
        raise memory.wrong("files", "a list of files")


def _places(fields: Fields, size: int, chunk: int, what: str) -> tuple[tuple[int, int], ...]:
    """Return the places of the chunks of a file of `size` bytes, cut into pieces of `chunk`.  Raises `DataError`."""
    flat = fields.items("places", 2 * MOST_CHUNKS)
    if len(flat) % 2:
        raise DataError(f"{what}: the places of its chunks are not complete")
    count, last = -(-size // chunk), -1
    places = list(zip(flat[::2], flat[1::2], strict=True))
    for number, index in places:
        if type(number) is not int or type(index) is not int or not (last < number < count) or index < 0:
            raise DataError(f"{what}: the places of its chunks are not in order, or not in the file")
        last = number
    return tuple(places)


def _flat(part: Part) -> list[int]:
    return [value for place in part.places for value in place]


def _snapshot(fields: Fields, memory: Fields | None) -> Snapshot:
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
        memory=_shape(memory) if memory else None,
        **texts,
    )


def _shape(fields: Fields) -> Shape:
    shape = Shape(fields.integer("cpus"), fields.integer("memory_mb"))
    if not 1 <= shape.cpus <= MAX_CPUS:
        raise fields.wrong("cpus", "a number of processors")
    if not 1 <= shape.memory_mb <= MAX_MEMORY_MB:
        raise fields.wrong("memory_mb", "the memory of a VM")
    return shape


def _compact(value: dict[str, Any]) -> bytes:
    """Return JSON without blanks: a full disk's documents are some megabytes, and registries have limits."""
    import json  # noqa: PLC0415

    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
