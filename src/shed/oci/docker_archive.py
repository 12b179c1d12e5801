"""Archives as ``docker save`` writes them, read as if they were OCI archives.

``manifest.json`` lists the images: ``Config``, the path of the config; ``Layers``, the paths of the layers, bottom
first; ``RepoTags``.
https://github.com/moby/docker-image-spec/blob/main/v1.2.md#combined-image-json--filesystem-changeset-format

The format has no descriptors, so they are made here, and the layers stay as they are: mostly plain tar files, whose
digests are the config's diffIDs.  Layers that are the same are stored once, elsewhere as links, which are not followed:
the diffID finds them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from shed.budget import Budget
from shed.errors import DataError
from shed.oci import media
from shed.oci.content import Archive, FileSlice
from shed.oci.decompression import HEAD, SourceReader, Spool, compression
from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest, digest_bytes, hex_of, mismatch
from shed.oci.fields import MAX_JSON, Fields
from shed.oci.manifest import MAX_DOCUMENTS, MAX_LAYERS, MAX_MANIFESTS, REF_NAME, ImageConfig, Index, Manifest
from shed.text import visible

_MEDIA_TYPES = {None: media.LAYER, "gzip": media.LAYER_GZIP, "zstd": media.LAYER_ZSTD}
_CONFIG_NAME = re.compile(r"(?:.*/)?([0-9a-f]{64})(?:\.json)?")


class DockerArchive:
    """The images of a docker archive, as a layout.

    The documents that it lacks are in unnamed files in the folder `scratch`.

    Raises `DataError` when the archive is damaged; that the layers are what the config says is for their reader to
    check.
    """

    def __init__(self, archive: Archive, scratch: Path, stack: contextlib.ExitStack) -> None:
        self.name = archive.name
        self._archive = archive
        self._scratch = scratch
        self._stack = stack
        self._files: dict[str, FileSlice] = {}
        self._layers: dict[str, Descriptor] = {}
        """By path: several images may have a layer, which is read once."""
        self._left = MAX_DOCUMENTS
        entries: list[Descriptor] = []
        for image in self._images():
            entries += self._entries(Fields(image, f"manifest.json of {self.name}"))
            if len(entries) > MAX_MANIFESTS:
                raise DataError(f"manifest.json of {self.name} has more than {MAX_MANIFESTS} names")
        self._files["index.json"] = self._write(Index(tuple(entries)).encode())

    def file(self, path: str) -> FileSlice | None:
        """Return the file that would be at `path` in an OCI archive, or None."""
        return self._files.get(path)

    def _images(self) -> list[Any]:
        what = f"manifest.json of {self.name}"
        try:
            images = json.loads(self._read("manifest.json", what))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{what} is not valid JSON: {error}") from None
        return Fields({"images": images}, what).items("images", MAX_MANIFESTS)

    def _entries(self, image: Fields) -> list[Descriptor]:
        """Add the blobs of one image; return a descriptor of its manifest for each of its names."""
        data = self._read(image.text("Config"), f"{self.name}: image config")
        named = _CONFIG_NAME.fullmatch(image.text("Config"))
        if named and digest_bytes(data) != f"sha256:{named[1]}":
            raise mismatch(f"{self.name}: image config", f"sha256:{named[1]}", digest_bytes(data))
        config = ImageConfig.parse(data, f"image config of {self.name}")
        paths = image.items("Layers", MAX_LAYERS)
        if len(paths) != len(config.diff_ids):
            raise DataError(f"{self.name}: the config lists {len(config.diff_ids)} layers, manifest.json {len(paths)}")
        layers: dict[Digest, Descriptor] = {}
        for diff_id, path in zip(config.diff_ids, paths, strict=True):
            if diff_id not in layers:
                layers[diff_id] = self._layer(path, diff_id)
        manifest = Manifest(self._add(media.CONFIG, data), tuple(layers[diff_id] for diff_id in config.diff_ids))
        entry = self._add(media.MANIFEST, manifest.encode())
        names = image.value.get("RepoTags") or [""]
        if (
            not isinstance(names, list)
            or len(names) > MAX_MANIFESTS
            or not all(isinstance(name, str) for name in names)
        ):
            raise image.wrong("RepoTags", f"a list of at most {MAX_MANIFESTS} strings")
        return [
            Descriptor(entry.media_type, entry.digest, entry.size, {REF_NAME: name} if name else {}, config.platform)
            for name in names
        ]

    def _layer(self, path: object, diff_id: Digest) -> Descriptor:
        if (known := self._layers.get(str(path))) is not None:
            return known
        layer = self._file(str(path))
        if layer is None:
            raise DataError(
                f"{self.name}: the layer {visible(str(path)[:100])} is missing",
                hint="the archive is incomplete: make it again",
            )
        packed = compression(layer.pread(HEAD, 0))
        digest = _digest(layer) if packed else diff_id
        self._files[f"blobs/sha256/{hex_of(digest)}"] = layer
        described = Descriptor(_MEDIA_TYPES[packed], digest, layer.size)
        if packed:  # of a plain one the config says the digest
            self._layers[str(path)] = described
        return described

    def _add(self, media_type: str, data: bytes) -> Descriptor:
        digest = digest_bytes(data)
        path = f"blobs/sha256/{hex_of(digest)}"
        if path not in self._files:
            self._files[path] = self._write(data)
        return Descriptor(media_type, digest, len(data))

    def _write(self, data: bytes) -> FileSlice:
        spool = self._stack.enter_context(Spool(self._scratch, Budget(len(data))))
        spool.write(data)
        return spool.finish()

    def _file(self, path: str) -> FileSlice | None:
        """Return the file at a path as some write it, with ``./`` before it; none outside of the archive."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        return None if ".." in parts else self._archive.file("/".join(parts))

    def _read(self, path: str, what: str) -> bytes:
        file = self._file(path)
        if file is None:
            raise DataError(f"{what} is missing", hint="the archive is incomplete: make it again")
        if file.size > MAX_JSON:
            raise DataError(f"{what} is too large")
        self._left -= file.size
        if self._left < 0:
            raise DataError(
                f"{self.name}: its configs have more than {MAX_DOCUMENTS >> 20} MiB", code="IMAGE_TOO_LARGE"
            )
        return file.pread(file.size, 0)


def _digest(source: FileSlice) -> Digest:
    sha = hashlib.sha256()
    SourceReader(source, sha.update).drain()
    return Digest("sha256:" + sha.hexdigest())
