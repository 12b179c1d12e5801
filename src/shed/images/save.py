"""Saving images to one file: an OCI archive with all that the images boot from, and their layers.

The entry of ``index.json`` that carries an image's name is what a push puts under a tag of a registry: an index of the
image manifest and, beside it, the boot manifest.  So tools that copy whole images, as ``skopeo copy --all`` does, take
along what the image boots from.

The same images give the same bytes: documents first, then layers, then what is booted from; every time and owner is
zero.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from shed.errors import DataError, NotFoundError
from shed.images.annotations import EMPTY_CONFIG, BootAnnotations, boot_manifest, tag_index
from shed.images.references import find_image
from shed.images.transfer import Counter
from shed.oci import media
from shed.oci.archivewrite import ArchiveWriter, blob_name, writing
from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest, digest_bytes, short
from shed.oci.fields import Fields, decode_object
from shed.oci.leases import Lease
from shed.oci.manifest import REF_NAME, Index, Manifest
from shed.oci.store import LayoutStore
from shed.progress import Progress, Stop


@dataclass(frozen=True, slots=True)
class Saved:
    """One image of the file."""

    name: str
    """Empty when it was asked for by its digest: then it has no name in the file either."""
    digest: Digest
    """Of the image manifest."""
    layers: bool
    """The layers are in the file too."""


@dataclass(slots=True)
class _Contents:
    """What goes into the file, each blob once, in the order it was met."""

    saved: list[Saved] = field(default_factory=list)
    index: list[Descriptor] = field(default_factory=list)
    documents: dict[Digest, bytes] = field(default_factory=dict)
    layers: dict[Digest, int] = field(default_factory=dict)
    """Sizes in bytes."""
    boot: dict[Digest, int] = field(default_factory=dict)
    """Sizes in bytes."""

    def blobs(self) -> dict[Digest, int]:
        """Return what is copied from the store, in order.

        What no image can do without comes last, so that a file that was cut off is never taken for complete.
        """
        return self.layers | self.boot


def save_to_file(
    store: LayoutStore, references: Sequence[str], path: Path, progress: Progress | None = None
) -> list[Saved]:
    """Save the images that `references` mean to the file `path`, which appears when it is complete; see `save_images`.

    What is there and no regular file (a pipe, a device) is written to as it is.
    """
    with writing(path) as output:
        return save_images(store, references, output, progress)


def save_images(
    store: LayoutStore, references: Sequence[str], output: BinaryIO, progress: Progress | None = None
) -> list[Saved]:
    """Write the images that `references` mean to `output`, one after another, and return what was written.

    Every blob is compared with its digest on its way.  An image whose layers are not here is saved without, with a
    warning. Raises `NotFoundError` (IMAGE_NOT_FOUND, BLOB_NOT_FOUND) before anything is written, and `DataError` for
    what is damaged.
    """
    progress = progress or Progress()
    progress.phase("check")
    contents = _Contents()
    with store.lease() as lease:
        for reference in references:
            _plan(store, lease, reference, contents, progress)
        progress.phase("save", f"saving {', '.join(dict.fromkeys(references))}")
        _write(store, contents, output, progress)
    progress.finish()
    return contents.saved


def _write(store: LayoutStore, contents: _Contents, output: BinaryIO, progress: Progress) -> None:
    counter = Counter(progress, "image", sum(contents.blobs().values()), Stop())
    archive = ArchiveWriter(output)
    archive.add("index.json", Index(tuple(contents.index)).encode())
    for digest, data in contents.documents.items():
        archive.add(blob_name(digest), data)
    for digest, size in contents.blobs().items():
        _copy(store, digest, size, archive, counter)
    archive.finish()


def _plan(store: LayoutStore, lease: Lease, reference: str, contents: _Contents, progress: Progress) -> None:
    """Add one image to `contents`."""
    found = find_image(store, reference)
    lease.image(found.digest)
    name = reference if reference == found.name else ""
    data = store.read_bytes(found.digest, what="image manifest")
    what = f"image manifest {short(found.digest)}"
    manifest = Manifest.parse(data, what)
    annotations = BootAnnotations.parse(manifest.annotations)
    has_layers = all(store.has(layer.digest) for layer in manifest.layers)
    saved = Saved(name, found.digest, has_layers)
    if saved in contents.saved:
        return
    if not has_layers:
        progress.warn(
            f"{reference}: its layers are not here, so they are not in the file: it boots, but nothing can be built "
            "from it"
        )
    boot = {digest: _size(store, digest, f"{label} blob", reference) for label, digest in annotations.blobs().items()}
    config = store.read_bytes(manifest.config.digest, what="image config")
    kind = Fields(decode_object(data, what), what).text("mediaType", media.MANIFEST)
    entry = Descriptor(kind, found.digest, len(data), platform=store.read_config(manifest).platform)
    documents = {found.digest: data, manifest.config.digest: config}
    if boot:
        boot_data = boot_manifest(annotations, boot)
        index = tag_index(entry, boot_data)
        entry = Descriptor(media.INDEX, digest_bytes(index), len(index))
        documents |= {digest_bytes(document): document for document in (index, boot_data, EMPTY_CONFIG)}
    contents.saved.append(saved)
    contents.index.append(
        Descriptor(entry.media_type, entry.digest, entry.size, {REF_NAME: name} if name else {}, entry.platform)
    )
    contents.documents |= documents
    contents.layers |= {layer.digest: layer.size for layer in manifest.layers if has_layers}
    contents.boot |= boot


def _size(store: LayoutStore, digest: Digest, what: str, reference: str) -> int:
    try:
        return store.size(digest)
    except NotFoundError:
        raise NotFoundError(
            f"cannot save {reference}: its {what} {short(digest)} is missing from the local store",
            code="BLOB_NOT_FOUND",
            hint="pull or build the image again",
        ) from None


def _copy(store: LayoutStore, digest: Digest, size: int, archive: ArchiveWriter, counter: Counter) -> None:
    """Add a blob of `store`.  Raises `DataError` (DIGEST_MISMATCH) when it is damaged."""
    with store.blob_path(digest).open("rb", buffering=0) as file:
        actual = os.fstat(file.fileno()).st_size
        if actual != size:
            raise DataError(
                f"blob {short(digest)} has {actual} bytes, expected {size}", hint="pull or build the image again"
            )
        archive.copy(digest, file, size, counter.add)
