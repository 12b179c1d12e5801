"""Pulling an image: what it boots from, and its layers only when they are asked for.

Every blob is verified while it comes in, and stays a staged one, to which nothing refers, until all of them are here; the root file system
is checked too.  Then they get their names, the manifest is stored byte for byte, and the tag goes last.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass

from shed.erofs.checker import check
from shed.erofs.errors import ErofsError
from shed.errors import DataError, NotFoundError
from shed.images import refs
from shed.images.annotations import BootAnnotations
from shed.images.remote import RemoteImage, find_remote
from shed.images.resolve import boot_blobs
from shed.images.transfer import AT_ONCE, Counter, at_once
from shed.names import check_image_name
from shed.oci import media
from shed.oci.descriptor import Descriptor, Platform
from shed.oci.digest import Digest, short
from shed.oci.registry.client import Repository
from shed.oci.registry.reference import Reference, parse_reference
from shed.oci.staging import StagedBlob
from shed.oci.store import LayoutStore
from shed.progress import Progress, Stop


@dataclass(frozen=True, slots=True)
class PullResult:
    """What was pulled."""

    tag: str
    """Empty when its name is another image's."""
    digest: Digest
    """Of the image manifest."""
    fetched: int
    exists: int
    """Blobs that were here."""
    fetched_bytes: int
    timings: dict[str, float]
    """Milliseconds by phase."""


def pull_image(
    store: LayoutStore,
    reference: str,
    *,
    tag: str | None = None,
    platform: Platform | None = None,
    take_tag: bool = True,
    with_layers: bool = False,
    insecure: bool = False,
    concurrency: int = AT_ONCE,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> PullResult:
    """Pull the image `reference` and call it `tag`, or by the last part of its path; at most `concurrency` blobs are fetched at a time.

    Unless `take_tag`, a name that means another image goes on to do so; the image is then known by its reference alone.

    `with_layers` fetches the layers as well, also those of an image that is here without them.  Raises `NotFoundError`, `RegistryError` and
    `UnavailableError`, and `DataError` for an image that is damaged or cannot be booted; then the store is as it was.
    """
    remote = parse_reference(reference)
    name = check_image_name(tag or remote.image_name())
    progress = progress or Progress()
    stop = stop or Stop()
    store.sweep()
    store.index()  # a damaged one is told now, not when all the work is done
    progress.phase("manifest", f"looking up {remote}")
    with contextlib.ExitStack() as stack:
        lease = stack.enter_context(store.lease())
        stack.enter_context(refs.pulling(store, reference, stop))
        repository = Repository(remote, insecure=insecure, sleep=stop.sleep)
        image = find_remote(repository, platform)
        annotations = _annotations(image, remote, with_layers=with_layers)
        wanted = _wanted(image, annotations, with_layers=with_layers)
        lease.blobs(*wanted, image.chosen.digest, image.chosen.manifest.config.digest)
        missing = {digest: size for digest, size in wanted.items() if not _has(store, digest)}
        progress.phase("blobs", f"pulling {remote}")
        sizes = missing.values()
        counter = Counter(progress, "image", None if None in sizes else sum(size or 0 for size in sizes), stop)
        blobs = _Blobs(store, repository, counter, stack)
        at_once(lambda digest: blobs.fetch(digest, missing[digest], is_root=digest == annotations.root), missing, stop, most=concurrency)
        progress.phase("commit", f"storing {name}")
        for digest, blob in blobs.staged.items():
            blob.commit(digest)
        name = _publish(store, image, name, take_tag=take_tag)
        if annotations.root is not None:
            refs.record(store, reference, image.chosen.digest)
    return PullResult(
        tag=name,
        digest=image.chosen.digest,
        fetched=len(missing),
        exists=len(wanted) - len(missing),
        fetched_bytes=counter.done,
        timings=progress.finish(),
    )


def _publish(store: LayoutStore, image: RemoteImage, name: str, *, take_tag: bool) -> str:
    """Store the documents and name the image; return the name, empty when another image keeps it."""
    store.put_bytes(image.chosen.config_bytes)
    store.put_bytes(image.data)
    manifest = Descriptor(media.MANIFEST, image.chosen.digest, len(image.data), platform=image.chosen.config.platform)
    if not take_tag and (tag := store.tag(name)) and tag.digest != manifest.digest:
        store.keep(manifest)
        return ""
    store.publish(manifest, name)
    return name


def _annotations(image: RemoteImage, reference: Reference, *, with_layers: bool) -> BootAnnotations:
    """Return what the image boots from.  Raises `DataError` (NOT_BOOTABLE) for an image without a root, unless its layers are wanted."""
    annotations = BootAnnotations.parse(image.chosen.manifest.annotations)
    if annotations.root is None and not with_layers:
        try:
            boot_blobs(image.chosen.digest, annotations)
        except DataError as error:
            error.hint = (
                f"this was a boot-only pull; an ordinary image, to build one from, is pulled with its layers: "
                f"shed image pull {reference} --with-layers"
            )
            raise
    return annotations


def _wanted(image: RemoteImage, annotations: BootAnnotations, *, with_layers: bool) -> dict[Digest, int | None]:
    """Return the blobs to have, with their sizes as far as they are known, the likely largest first."""
    boot: dict[Digest, int | None] = dict.fromkeys(reversed(annotations.blobs().values()))
    layers = image.chosen.manifest.layers if with_layers else ()
    return boot | {layer.digest: layer.size for layer in sorted(layers, key=lambda layer: -layer.size)}


def _has(store: LayoutStore, digest: Digest) -> bool:
    """Tell whether a blob is here and undamaged; a damaged one is fetched again."""
    try:
        store.verify(digest)
    except (NotFoundError, DataError):
        return False
    return True


class _Blobs:
    """Fetches blobs, from several threads; they stay staged as long as `stack` is open."""

    def __init__(self, store: LayoutStore, repository: Repository, counter: Counter, stack: contextlib.ExitStack) -> None:
        self.staged: dict[Digest, StagedBlob] = {}
        self._store = store
        self._repository = repository
        self._counter = counter
        self._stack = stack
        self._lock = threading.Lock()

    def fetch(self, digest: Digest, size: int | None, *, is_root: bool) -> None:
        """Fetch a blob and make it durable; one that is the root is checked."""
        with self._lock:
            blob = self.staged[digest] = self._stack.enter_context(self._store.stage())
        self._repository.fetch_blob(digest, blob, size=size, on_bytes=self._counter.add)
        blob.sync()
        if is_root:
            _check_root(blob, digest, self._repository.reference)


def _check_root(blob: StagedBlob, digest: Digest, reference: Reference) -> None:
    """Raise `DataError` unless the root file system obeys all rules: a kernel may mount one that does not, and fail to read it later."""
    try:
        check(blob.path)
    except ErofsError as error:
        raise DataError(
            f"the root file system {short(digest)} of {reference} is unusable: {error.message}",
            code=error.code,
            hint="whoever published the image must build it again, with a current shed",
        ) from None
