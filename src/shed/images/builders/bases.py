"""Images of our store that a Containerfile builds on, given to the builder as image layouts.

::

    FOLDER/shed-from/HEX/               HEX: the first digits of the digest of what the layout holds
        oci-layout, index.json
        blobs/sha256/…                  the manifest, and links to config and layers in the store

A builder takes a layout in place of a name by ``--build-context``.  The manifest has none of our annotations: builders
pass them on to what they build, which does not boot what its base boots.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from shed.errors import DataError, NotFoundError, UsageError
from shed.fsutil import storage_errors
from shed.images.builders.containerfile import Named, read_names
from shed.images.remote import RemoteImage
from shed.oci import media
from shed.oci.archive import open_blob
from shed.oci.content import Archive
from shed.oci.decompression import CHUNK, SourceReader
from shed.oci.descriptor import Descriptor
from shed.oci.digest import SHORT_HEX, Digest, digest_bytes, hex_of, mismatch
from shed.oci.leases import Lease
from shed.oci.manifest import REF_NAME, ImageConfig, Index, Manifest
from shed.oci.selection import select_image
from shed.oci.store import LayoutStore

FOLDER = "shed-from"
"""podman and buildah keep what they take from a layout as ``localhost/shed-from/HEX``.

Up to podman 4 that comes of its path, later of the name of the image in it.
"""
_LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Base:
    """An image of the store that a Containerfile names."""

    name: str
    """Its tag."""
    words: tuple[str, ...]
    """How the Containerfile names it: as it is written, and with arguments put in."""
    digest: Digest
    """Of its manifest in the store."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a base is for the builder."""

    base: Base
    folder: Path
    """The folder that layouts are below."""
    path: str
    """Of the layout, relative to `folder`."""
    digest: Digest
    """Of the manifest in it."""
    config: Digest
    """Of the image's config."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """How the image says that it is to be run: User, Env, Labels, and so on."""


def find_bases(file: Path, arguments: Mapping[str, str], store: LayoutStore) -> tuple[Base, ...]:
    """Return the images of `store` that the Containerfile `file` builds on, by NAME or NAME:latest.

    A name that stands for a stage there, is that.  Raises `UsageError` for a file that is not text, and for an image
    and a stage with one name.
    """
    try:
        with storage_errors(file), file.open(encoding="utf-8") as opened:
            text = opened.read(_LARGEST)
    except UnicodeDecodeError:
        raise UsageError(f"{file} is no text", hint="name the Containerfile with --file") from None
    names, known = read_names(text, arguments), set(store.tag_names())
    found: dict[str, list[Named]] = {}
    for named in names.images:
        if (name := named.name.removesuffix(":latest")) in known:
            found.setdefault(name, []).append(named)
    bases = []
    for name, uses in found.items():
        if name.lower() in names.stages:
            raise UsageError(
                f"{name} in {file} is an image of this store and also a stage",
                hint="give the stage another name, or write the image with its registry",
            )
        if (tag := store.tag(name)) is not None:
            words = dict.fromkeys(word for use in uses for word in (use.written, use.name))
            bases.append(Base(name, tuple(words), tag.digest))
    return tuple(bases)


def lay_out(base: Base, folder: Path, store: LayoutStore, lease: Lease) -> Layout:
    """Write the layout of `base` below `folder`; `lease` keeps what it links to.

    Config and layers are compared with their digests.  Raises `NotFoundError`, `DataError` and `StorageError`.
    """
    lease.image(base.digest)
    manifest = store.read_manifest(base.digest)

    def blob(descriptor: Descriptor, path: Path) -> None:
        _check(base, descriptor, store)
        _link(store, descriptor, path)

    return _write(base, manifest, store.read_config(manifest), folder, blob)


def lay_out_archive(name: str, archive: Archive, folder: Path, store: LayoutStore, lease: Lease) -> Layout:
    """Write the layout of the image in `archive`, which a Containerfile calls `name`, below `folder`.

    What the store has is linked, and `lease` keeps it; a registry's layers are brought there.  The rest is copied.  All
    of it is compared with its digests.  Raises `NotFoundError`, `DataError`, `StorageError`, and as a fetch does.
    """
    chosen = select_image(archive)
    lease.blobs(*(layer.digest for layer in chosen.manifest.layers))
    if isinstance(archive, RemoteImage):
        archive.fetch_layers([])

    def blob(descriptor: Descriptor, path: Path) -> None:
        if store.intact(descriptor.digest):
            _link(store, descriptor, path)
        elif descriptor.digest == chosen.manifest.config.digest:
            path.write_bytes(chosen.config_bytes)
        else:
            _copy(archive, descriptor, path, store)

    return _write(Base(name, (name,), chosen.digest), chosen.manifest, chosen.config, folder, blob)


def _write(
    base: Base, manifest: Manifest, config: ImageConfig, folder: Path, blob: Callable[[Descriptor, Path], None]
) -> Layout:
    """Write a layout, whose blobs `blob` puts into their places."""
    data = replace(
        manifest,
        annotations={key: text for key, text in manifest.annotations.items() if not key.startswith("io.shed.")},
    ).encode()
    digest = digest_bytes(data)
    path = f"{FOLDER}/{hex_of(digest)[:SHORT_HEX]}"
    with storage_errors(folder):
        blobs = folder / path / "blobs/sha256"
        blobs.mkdir(parents=True, exist_ok=True)
        for descriptor in {each.digest: each for each in (manifest.config, *manifest.layers)}.values():
            blob(descriptor, blobs / hex_of(descriptor.digest))
        (blobs / hex_of(digest)).write_bytes(data)
        entry = Descriptor(media.MANIFEST, digest, len(data), {REF_NAME: f"localhost/{path}"}, config.platform)
        (folder / path / "index.json").write_bytes(Index((entry,)).encode())
        (folder / path / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    return Layout(base, folder, path, digest, manifest.config.digest, config.settings)


def _link(store: LayoutStore, descriptor: Descriptor, path: Path) -> None:
    if not path.is_symlink():
        path.symlink_to(store.blob_path(descriptor.digest).absolute())


def _copy(archive: Archive, descriptor: Descriptor, path: Path, store: LayoutStore) -> None:
    source, sha = open_blob(archive, descriptor, "layer"), hashlib.sha256()
    reader = SourceReader(source, sha.update)
    with path.open("wb") as file:
        while data := reader.read(CHUNK):
            store.reserve.check(len(data))
            file.write(data)
    if (got := Digest(f"sha256:{sha.hexdigest()}")) != descriptor.digest:
        raise mismatch(f"{archive.name}: layer", descriptor.digest, got)


def write_docker_archive(layout: Layout, output: Path, name: str) -> None:
    """Write the image to a file from which ``docker load`` takes it as `name`.  Raises `StorageError`."""
    folder = layout.folder / layout.path
    manifest = Manifest.parse((folder / _blob(layout.digest)).read_bytes())
    document = [
        {
            "Config": _blob(manifest.config.digest),
            "RepoTags": [name],
            "Layers": [_blob(layer.digest) for layer in manifest.layers],
        }
    ]
    data = json.dumps(document).encode()
    with storage_errors(output), tarfile.open(output, "w", dereference=True) as archive:
        member = tarfile.TarInfo("manifest.json")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
        for digest in dict.fromkeys((manifest.config.digest, *(layer.digest for layer in manifest.layers))):
            archive.add(folder / _blob(digest), _blob(digest))


def _blob(digest: Digest) -> str:
    return f"blobs/sha256/{hex_of(digest)}"


def _check(base: Base, descriptor: Descriptor, store: LayoutStore) -> None:
    try:
        store.verify(descriptor.digest)
    except NotFoundError:
        raise NotFoundError(
            f"cannot build on {base.name}: its layers are not in this store, which has only what it boots from",
            code="BLOB_NOT_FOUND",
            hint="pull it again: shed image pull --with-layers REF",
        ) from None
    if store.size(descriptor.digest) != descriptor.size:
        raise DataError(
            f"a layer of {base.name} has another size than its manifest says", hint="pull or build it again"
        )
