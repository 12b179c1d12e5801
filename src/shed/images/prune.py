"""Removing what nobody needs from the store: first a plan, then its execution.

A prune keeps everybody who adds to the store waiting while it looks and deletes (`shed.oci.leases`), and deletes
nothing at all when it cannot read something that may need an image (`reachable`).  It goes from names to
contents, so that a crash at any moment leaves a layout in which everything that is listed is complete; what was left is
removed by the next one.

What is needed goes from those who need an image to every blob that it consists of.  That something is *missing* is no
doubt: the name of an image that is not here keeps nothing.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shed.errors import DataError, NotFoundError, ShedError
from shed.fsutil import fsync_dir, storage_errors
from shed.images import references
from shed.images.annotations import BootAnnotations, blobs_of
from shed.images.bootkit.kit import read_kit
from shed.images.pins import Pin
from shed.oci import media
from shed.oci.digest import Digest, hex_of, is_digest, short
from shed.oci.leases import Leased, pruning
from shed.oci.manifest import Index
from shed.oci.partial import partial_path, partials
from shed.oci.store import LayoutStore


@dataclass(frozen=True, slots=True)
class Garbage:
    """One thing that nobody needs."""

    kind: str
    """``image`` (its manifest), ``blob``, ``partial`` (what a download left), or ``cache`` (a root that v0.5.1 made on
    the host).
    """
    digest: Digest
    size_bytes: int
    """What it takes up on the disk."""
    reference: str = ""
    """The reference that an image was built for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a prune removes."""

    garbage: tuple[Garbage, ...]
    """Images first, each kind by digest."""
    unlisted: frozenset[Digest]
    """Manifests that leave the index."""
    records: tuple[Path, ...]
    """Files that say something about what goes."""

    @property
    def images(self) -> int:
        """How many images go."""
        return sum(item.kind == "image" for item in self.garbage)

    @property
    def size_bytes(self) -> int:
        """What becomes free on the disk."""
        return sum(item.size_bytes for item in self.garbage)

    def to_wire(self) -> dict[str, Any]:
        """Return the plan as the API shows it; only images have a ``docker_ref``."""
        rows = [
            {"kind": item.kind, "digest": item.digest, "size_bytes": item.size_bytes}
            | ({"docker_ref": item.reference} if item.kind == "image" else {})
            for item in self.garbage
        ]
        return {"deleted": rows, "images": self.images, "size_bytes": self.size_bytes}


def prune(
    store: LayoutStore, pins: Callable[[], Iterable[Pin]], configured: Mapping[str, str], *, dry_run: bool = False
) -> Plan:
    """Remove what nobody needs and return what that was; with `dry_run` only look.

    `pins` is called when nobody can add to the store any more, and raises what keeps it from knowing all of them;
    `configured` are the references that the configuration names, by their keys.  Raises `ShedError`; then nothing was
    removed, or, when the disk refused in the midst of it, what remains is whole.
    """
    if not store.root.is_dir():
        return Plan((), frozenset(), ())
    with pruning(store.root) as leased:
        made = plan(store, leased, pins(), configured)
        if not dry_run:
            execute(store, made)
    return made


def discard(store: LayoutStore, digests: Collection[Digest]) -> None:
    """Remove those of the blobs `digests` that nobody needs: no lease names them, and no manifest that is here.

    For what was fetched in vain; the caller's own lease has ended.  Raises `StorageError` and `DataError`.
    """
    if not digests:
        return
    with pruning(store.root) as leased:
        needed = set(leased.blobs)
        for digest, manifest in store.manifests():
            needed |= blobs_of(digest, manifest)
        for digest in set(digests) - needed:
            with storage_errors(path := store.blob_path(digest)):
                path.unlink(missing_ok=True)


def plan(store: LayoutStore, leased: Leased, pins: Iterable[Pin], configured: Mapping[str, str]) -> Plan:
    """Return what nobody needs.  Nobody may add to the store meanwhile.

    Raises `ShedError` when that cannot be told for certain.
    """
    needed = reachable(store, leased, pins, configured)
    present = store.inventory()
    for digest, status in present.items():
        if not stat.S_ISREG(status.st_mode):
            raise DataError(
                f"{store.blob_path(digest)} is not a file: stores of v0.4 have folders there",
                code="OLD_STORE",
                hint=f"nothing of it can be used: stop the server, move {store.root} away, and get the images again",
            )
    unlisted = frozenset(entry.digest for entry in store.index().manifests) - needed.blobs
    garbage = []
    for digest in sorted(present.keys() - needed.blobs):
        size = present[digest].st_blocks * 512
        is_image = digest in unlisted
        garbage.append(
            Garbage("image" if is_image else "blob", digest, size, _source_ref(store, digest) if is_image else "")
        )
    garbage.sort(key=lambda item: item.kind != "image")
    return Plan(
        garbage=(*garbage, *_partials(store, leased), *_cached(store, needed)),
        unlisted=unlisted,
        records=(*references.stale(store, needed.blobs), *_verified(store, needed.blobs)),
    )


def execute(store: LayoutStore, made: Plan) -> None:
    """Remove what `made` says.  Nobody may have added to the store since it was made.  Raises `StorageError`."""
    if made.unlisted:
        store.unlist(made.unlisted)
    for path in (*made.records, *(_path(store, item) for item in made.garbage)):
        with storage_errors(path):
            path.unlink(missing_ok=True)
    if made.garbage and store.blobs.is_dir():
        fsync_dir(store.blobs)
    store.sweep()


def _path(store: LayoutStore, item: Garbage) -> Path:
    if item.kind == "cache":
        return _cache(store) / f"{hex_of(item.digest)}.erofs"
    return partial_path(store.blobs, item.digest) if item.kind == "partial" else store.blob_path(item.digest)


def _cache(store: LayoutStore) -> Path:
    return store.root / "cache/sha256"


def _partials(store: LayoutStore, leased: Leased) -> Iterable[Garbage]:
    """Return what is left of downloads that nobody is at: who goes on with one has leased the blob."""
    for digest, status in sorted(partials(store.blobs).items()):
        if digest not in leased.blobs:
            yield Garbage("partial", digest, status.st_blocks * 512)


def _cached(store: LayoutStore, needed: Reachable) -> Iterable[Garbage]:
    """Return what is left of the root file systems that v0.5.1 kept by manifest.

    Nothing reads them, but who goes back there wants them.
    """
    for path in sorted(_cache(store).glob("*.erofs")):
        digest = Digest(f"sha256:{path.stem}")
        if is_digest(digest) and digest not in needed.manifests:
            yield Garbage("cache", digest, path.lstat().st_blocks * 512)


def _verified(store: LayoutStore, kept: Iterable[Digest]) -> list[Path]:
    """Return the records of comparisons with blobs other than `kept`."""
    names = {hex_of(digest) for digest in kept}
    return sorted(path for path in (store.root / "verified").glob("[0-9a-f]*") if path.name not in names)


def _source_ref(store: LayoutStore, digest: Digest) -> str:
    try:
        return BootAnnotations.parse(store.read_manifest(digest).annotations).source_ref
    except ShedError:  # nobody needs it, whatever it is
        return ""


@dataclass(slots=True)
class Reachable:
    """What is needed."""

    manifests: set[Digest] = field(default_factory=set)
    """Manifests, and indexes of them, that are needed, whether or not they are here."""
    blobs: set[Digest] = field(default_factory=set)
    """All blobs that are needed, the manifests among them."""


def reachable(store: LayoutStore, leased: Leased, pins: Iterable[Pin], configured: Mapping[str, str]) -> Reachable:
    """Return what of `store` is needed.

    It is needed by `leased`, `pins`, the tags, the kit, or the references that are `configured`, by their keys.

    Raises `DataError`, also when the manifest of a strict pin is gone.
    """
    result = Reachable(blobs=set(leased.blobs))
    leases = [Pin(digest, "an image being added or read", "wait for that to end") for digest in leased.images]
    for pin in (*leases, *pins, *_tags(store), *_configured(store, configured)):
        if pin.digest not in result.manifests:
            result.manifests.add(pin.digest)
            result.blobs |= _needs(store, pin)
    if kit := read_kit(store):
        result.blobs |= {kit.kernel, kit.initrd, kit.runtime}
    _add_indexes(store, result)
    return result


def _tags(store: LayoutStore) -> Iterable[Pin]:
    for name in store.tag_names():
        if tag := store.tag(name):
            yield Pin(tag.digest, f"image {name!r}", f"get it again, or remove it: shed image rm {name}")


def _configured(store: LayoutStore, configured: Mapping[str, str]) -> Iterable[Pin]:
    for key, reference in configured.items():
        digest = Digest(reference) if is_digest(reference) else references.recorded(store, reference)
        if digest is not None:
            yield Pin(digest, f"{reference}, which {key} names", f"get it again: shed image pull {reference}")


def _needs(store: LayoutStore, pin: Pin) -> set[Digest]:
    try:
        return blobs_of(pin.digest, store.read_manifest(pin.digest))
    except NotFoundError as error:
        if not pin.strict:
            return {pin.digest}
        raise DataError(f"{error.message}, but {pin.holder} needs it", code="IMAGE_DAMAGED", hint=pin.hint) from None
    except ShedError as error:
        message = f"cannot tell what {pin.holder} needs: {error.message} ({store.blob_path(pin.digest)})"
        code = error.code if isinstance(error, DataError) else "IMAGE_DAMAGED"
        raise DataError(message, code=code, hint=pin.hint) from None


def _add_indexes(store: LayoutStore, result: Reachable) -> None:
    """Add indexes that other tools have put into the store, with all that they list, if an image in them is needed."""
    for entry in store.index().manifests:
        if entry.media_type == media.INDEX and store.has(entry.digest):
            what = f"image index {store.blob_path(entry.digest)}"
            listed = Index.parse(store.read_bytes(entry.digest, what=what), what)
            if any(manifest.digest in result.manifests for manifest in listed.manifests):
                result.manifests.add(entry.digest)
                result.blobs.add(entry.digest)
                for manifest in listed.manifests:
                    pin = Pin(
                        manifest.digest,
                        f"image index {short(entry.digest)}",
                        "remove that file, or copy the image in again",
                    )
                    result.manifests.add(pin.digest)
                    result.blobs |= _needs(store, pin)
