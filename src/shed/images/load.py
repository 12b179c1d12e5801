"""Loading images from a file that `shed.images.save`, or any tool that copies such a file as a whole, has written.

Blobs that are not here yet are copied to staged ones and compared with their digests and sizes; the root and runtime
file systems go through the checker.  Only when all images of the file are complete do the blobs get their names, and
tags go last.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shed.errors import ConflictError, DataError, UsageError
from shed.images import trust
from shed.images.annotations import BootAnnotations, blobs_of, boot_blobs
from shed.images.transfer import Counter
from shed.images.verify import check_file_system
from shed.names import check_image_name
from shed.oci import media
from shed.oci.archive import blaming, open_archive, open_blob
from shed.oci.content import Archive, FileSlice
from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest, hex_of, mismatch, short
from shed.oci.leases import Lease
from shed.oci.selection import SelectedImage, select_named
from shed.oci.staging import StagedBlob
from shed.oci.store import LayoutStore
from shed.progress import Progress, Stop

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Loaded:
    """One image that is now in the store."""

    name: str
    """Empty when it has none, or none that it could be given."""
    digest: Digest
    """Of the image manifest."""
    layers: bool
    """Its layers are here too."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One image of the file."""

    name: str
    chosen: SelectedImage
    blobs: dict[Digest, tuple[str, FileSlice | None]]
    """All but the two documents: what people call them, and where they are in the file, None when not there."""
    checked: dict[Digest, str]
    """The file systems among them."""
    layers: bool


def load_images(
    store: LayoutStore,
    source: Path | str,
    *,
    tag: str | None = None,
    force: bool = False,
    trust_kernel: bool = False,
    progress: Progress | None = None,
) -> list[Loaded]:
    """Load all images of `source` (archive, compressed or not, layout folder, or ``-`` for stdin) and return them.

    An image keeps its name of the file unless that means another image here; `force` takes the name from that one.
    `tag` is the name for the only image of the file.  With `trust_kernel`, what the images boot with may boot here from
    then on (`shed.images.trust`). Raises `DataError` (NOT_BOOTABLE, DIGEST_MISMATCH, …), `UsageError`, `ConflictError`
    (NAME_TAKEN) when `tag` is taken, and `StorageError`; then the store is as it was.
    """
    if tag is not None:
        check_image_name(tag)
    progress = progress or Progress()
    trust.prepare(store)
    store.sweep()
    store.index()  # a damaged one is told now, not when all the work is done
    origin = "stdin" if str(source) == "-" else str(source)
    progress.phase("read", f"reading {origin}")
    with contextlib.ExitStack() as stack:
        lease = stack.enter_context(store.lease())
        with blaming(origin):
            archive = stack.enter_context(open_archive(source, scratch=store.scratch(), reserve=store.reserve))
            wanted = [_wanted(store, lease, archive, name, chosen) for name, chosen in select_named(archive)]
        if tag is not None:
            wanted = [_renamed(store, wanted, tag, origin, force=force)]
        progress.phase("blobs", f"loading {len(wanted)} image{'s' if len(wanted) > 1 else ''}")
        with blaming(origin):
            staged = _stage(store, wanted, progress, stack)
            _check(store, wanted, staged)
        progress.phase("commit", "storing")
        for digest, blob in staged.items():
            blob.commit(digest)
        loaded = [_name(store, image, progress, force=force) for image in wanted]
        for image in loaded if trust_kernel else ():
            trust.add_image(store, image.digest, f"--trust-kernel, with {origin}")
    progress.finish()
    return loaded


def _wanted(store: LayoutStore, lease: Lease, archive: Archive, name: str, chosen: SelectedImage) -> _Wanted:
    """Return what is to be had of an image.  Raises `DataError` when it cannot be booted or is not complete."""
    annotations = BootAnnotations.parse(chosen.manifest.annotations)
    try:
        boot = boot_blobs(chosen.digest, annotations)
    except DataError as error:
        error.hint = "an ordinary image is made bootable by: shed image build --from-oci-archive FILE -n NAME"
        raise
    layers = chosen.manifest.layers
    lease.blobs(*blobs_of(chosen.digest, chosen.manifest))
    blobs: dict[Digest, tuple[str, FileSlice | None]] = {}
    for what, digest in boot.items():
        found = archive.file(f"blobs/sha256/{hex_of(digest)}")
        if found is None and not store.intact(digest):
            raise DataError(
                f"{archive.name}: {what} blob {short(digest)} is missing",
                hint="the file is incomplete: save the image again",
            )
        if found is not None and found.size != annotations.sizes.get(digest, found.size):
            raise DataError(
                f"{archive.name}: {what} blob {short(digest)} has {found.size} bytes, expected "
                f"{annotations.sizes[digest]}"
            )
        blobs[digest] = f"{what} blob", found
    here = {layer.digest for layer in layers if archive.file(f"blobs/sha256/{hex_of(layer.digest)}") is not None}
    full = bool(here) or all(store.intact(layer.digest) for layer in layers)
    if full:  # some of them without the others are a damaged file
        for number, layer in enumerate(layers, 1):
            what = f"layer {number}"
            in_store = layer.digest not in here and store.intact(layer.digest)
            blobs[layer.digest] = what, None if in_store else open_blob(archive, layer, what)
    checked = {digest: what for what, digest in boot.items() if what.endswith("erofs")}
    return _Wanted(name, chosen, blobs, checked, full)


def _renamed(store: LayoutStore, wanted: list[_Wanted], tag: str, origin: str, *, force: bool) -> _Wanted:
    """Return the only image of the file, called `tag`."""
    digests = {image.chosen.digest for image in wanted}
    if len(digests) > 1:
        raise UsageError(
            f"{origin} holds {len(digests)} images: they cannot all be called {tag}", hint="load it without -t"
        )
    image = wanted[0]
    if not force and _taken(store, tag, image.chosen.digest):
        raise ConflictError(
            f"{tag} is the name of another image", code="NAME_TAKEN", hint="choose another, or add --force to take it"
        )
    return _Wanted(tag, image.chosen, image.blobs, image.checked, image.layers)


def _stage(
    store: LayoutStore, wanted: list[_Wanted], progress: Progress, stack: contextlib.ExitStack
) -> dict[Digest, StagedBlob]:
    """Copy what is not here to staged blobs, which live as long as `stack` is open."""
    found = {
        digest: (what, source)
        for image in wanted
        for digest, (what, source) in image.blobs.items()
        if source is not None
    }
    missing = {digest: blob for digest, blob in found.items() if not store.intact(digest)}
    counter = Counter(progress, "image", sum(source.size for _, source in missing.values()), Stop())
    staged = {}
    for digest, (what, source) in missing.items():
        blob = staged[digest] = stack.enter_context(store.stage())
        while data := source.pread(_CHUNK, blob.size):
            blob.write(data)
            counter.add(len(data))
        if blob.digest() != digest:
            raise mismatch(f"{what} {short(digest)}", digest, blob.digest())
        blob.sync()
    return staged


def _check(store: LayoutStore, wanted: list[_Wanted], staged: Mapping[Digest, StagedBlob]) -> None:
    """Check every file system.  Raises `DataError`."""
    for digest, what in {digest: what for image in wanted for digest, what in image.checked.items()}.items():
        check_file_system(
            staged[digest].path if digest in staged else store.blob_path(digest), f"{what} {short(digest)}"
        )


def _name(store: LayoutStore, image: _Wanted, progress: Progress, *, force: bool) -> Loaded:
    """Store the documents of an image whose blobs are here, and give it its name."""
    chosen = image.chosen
    store.put_bytes(chosen.config_bytes)
    store.put_bytes(chosen.manifest_bytes)
    described = Descriptor(media.MANIFEST, chosen.digest, len(chosen.manifest_bytes), platform=chosen.config.platform)
    name = image.name
    try:
        if name and not force and _taken(store, name, chosen.digest):
            progress.warn(
                f"{name} is another image here: what was loaded is {short(chosen.digest)}; --force gives it the name"
            )
            name = ""
    except UsageError:
        progress.warn(
            f"the file calls it {name!r}, which cannot be a name here: it is {short(chosen.digest)}; -t gives it a name"
        )
        name = ""
    if name:
        store.publish(described, name)
    else:
        store.keep(described)
    return Loaded(name, chosen.digest, image.layers)


def _taken(store: LayoutStore, name: str, digest: Digest) -> bool:
    """Tell whether `name` means another image.  Raises `UsageError` when it cannot be a name."""
    check_image_name(name)
    try:
        tag = store.tag(name)
    except DataError:  # it means nothing any more
        return False
    return tag is not None and tag.digest != digest
