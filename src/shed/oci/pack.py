"""OCI archives from tar files of root file systems, alone or on top of another image.

The same input gives the same bytes.

For recipes, which have a root file system and want an ordinary OCI image, and for tests.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import zstandard
from isal import isal_zlib

from shed.fsutil import atomic_file, public_mode
from shed.oci import media
from shed.oci.archive import open_blob
from shed.oci.content import Archive
from shed.oci.decompression import SourceReader
from shed.oci.descriptor import Descriptor, Platform
from shed.oci.digest import Digest, digest_bytes, hex_of, mismatch
from shed.oci.fields import encode_object
from shed.oci.manifest import REF_NAME, Index, Manifest
from shed.oci.selection import SelectedImage, select_image

Compression = Literal["gzip", "zstd", "none"]
EPOCH = "1970-01-01T00:00:00Z"
_CHUNK = 1 << 20
_GZIP_LEVEL, _ZSTD_LEVEL = 2, 3
_MEDIA_TYPES: dict[Compression, str] = {"gzip": media.LAYER_GZIP, "zstd": media.LAYER_ZSTD, "none": media.LAYER}


class Readable(Protocol):
    """What a tar file takes a member's content from."""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes; none at the end."""
        ...


def pack_archive(
    output: Path,
    layers: Sequence[Path],
    *,
    settings: Mapping[str, Any] | None = None,
    parent: tuple[Archive, SelectedImage] | None = None,
    platform: Platform | None = None,
    name: str | None = None,
    created: str = EPOCH,
    created_by: str = "",
    compression: Compression = "gzip",
) -> Digest:
    """Write an OCI archive of one image to `output` and return its manifest's digest.

    `layers` are uncompressed tar files, bottom first; they go on top of those of the image `parent`, which are copied
    as they are. `settings` is the config's ``config`` object (Env, User, …); `platform` is the parent's or this
    machine's unless given; `name` becomes the tag in ``index.json``, and in a ``manifest.json`` for `docker load`.
    Raises `DataError` when a layer of `parent` is damaged.
    """
    image = parent[1] if parent else None
    lower = image.manifest.layers if image else ()
    diff_ids = image.config.diff_ids if image else ()
    history = image.config.raw.get("history", []) if image else []
    platform = platform or (image.config.platform if image else Platform.of_host())
    with (
        atomic_file(output, mode=public_mode()) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        _add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        for descriptor in lower:
            assert parent
            _copy_layer(archive, parent[0], descriptor)
        packed = [_add_layer(archive, layer, output.parent, compression) for layer in layers]
        config = encode_object(
            {
                "created": created,
                "architecture": platform.architecture,
                "os": platform.os,
                **({"variant": platform.variant} if platform.variant else {}),
                "config": dict(settings or {}),
                "rootfs": {"type": "layers", "diff_ids": [*diff_ids, *(diff_id for _, diff_id in packed)]},
                "history": [*history, *({"created": created, "created_by": created_by} for _ in packed)],
            }
        )
        config_descriptor = Descriptor(media.CONFIG, _add_blob(archive, config), len(config))
        stacked = (*lower, *(descriptor for descriptor, _ in packed))
        manifest = Manifest(config_descriptor, stacked).encode()
        digest = _add_blob(archive, manifest)
        annotations = {REF_NAME: name} if name else {}
        _add(
            archive,
            "index.json",
            Index((Descriptor(media.MANIFEST, digest, len(manifest), annotations, platform),)).encode(),
        )
        if name:
            _add(archive, "manifest.json", _for_docker(name, config_descriptor, stacked))
    return digest


def repack_archive(archive: Archive, output: Path) -> None:
    """Write the only image in `archive` to the OCI archive `output`, its config and layers as they are.

    Raises `DataError`.
    """
    chosen = select_image(archive)
    manifest = chosen.manifest.encode()
    with (
        atomic_file(output, mode=public_mode()) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as packed,
    ):
        _add(packed, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add_blob(packed, chosen.config_bytes)
        for digest, layer in {layer.digest: layer for layer in chosen.manifest.layers}.items():
            content = SourceReader(open_blob(archive, layer, "layer"))
            _add(packed, f"blobs/sha256/{hex_of(digest)}", content, layer.size)
        entry = Descriptor(media.MANIFEST, _add_blob(packed, manifest), len(manifest), platform=chosen.config.platform)
        _add(packed, "index.json", Index((entry,)).encode())


def _for_docker(name: str, config: Descriptor, layers: Sequence[Descriptor]) -> bytes:
    """Return what `docker load` reads in place of an OCI index."""
    tag = name if ":" in name else f"{name}:latest"
    return json.dumps(
        [{"Config": _path(config.digest), "RepoTags": [tag], "Layers": [_path(layer.digest) for layer in layers]}]
    ).encode()


def _add_layer(
    archive: tarfile.TarFile, layer: Path, folder: Path, compression: Compression
) -> tuple[Descriptor, Digest]:
    """Add the layer, compressed, and return its descriptor and its diffID."""
    unpacked, packed = hashlib.sha256(), hashlib.sha256()
    with layer.open("rb") as source, tempfile.TemporaryFile(dir=folder) as file:

        def put(data: bytes) -> None:
            packed.update(data)
            file.write(data)

        compress, flush = _compressor(compression)
        while data := source.read(_CHUNK):
            unpacked.update(data)
            put(compress(data))
        put(flush())
        descriptor = Descriptor(_MEDIA_TYPES[compression], Digest("sha256:" + packed.hexdigest()), file.tell())
        file.seek(0)
        _add(archive, _path(descriptor.digest), file, descriptor.size)
    return descriptor, Digest("sha256:" + unpacked.hexdigest())


def _copy_layer(archive: tarfile.TarFile, source: Archive, descriptor: Descriptor) -> None:
    """Add a layer of another image as it is."""
    reader = SourceReader(open_blob(source, descriptor, "layer"), (sha := hashlib.sha256()).update)
    _add(archive, f"blobs/sha256/{hex_of(descriptor.digest)}", reader, descriptor.size)
    if (got := Digest("sha256:" + sha.hexdigest())) != descriptor.digest:
        raise mismatch(f"{source.name}: layer", descriptor.digest, got)


def _compressor(compression: Compression) -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    if compression == "none":
        return lambda data: data, lambda: b""
    if compression == "zstd":
        frame = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
        return frame.compress, frame.flush
    stream = isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, 31)
    return stream.compress, stream.flush


def _add_blob(archive: tarfile.TarFile, data: bytes) -> Digest:
    digest = digest_bytes(data)
    _add(archive, _path(digest), data)
    return digest


def _path(digest: Digest) -> str:
    return f"blobs/sha256/{hex_of(digest)}"


def _add(archive: tarfile.TarFile, name: str, content: bytes | Readable, size: int | None = None) -> None:
    info = tarfile.TarInfo(name)
    info.mode = 0o644
    if isinstance(content, bytes):
        size, content = len(content), io.BytesIO(content)
    info.size = size or 0
    archive.addfile(info, content)
