"""Pushing an image: its blobs, its manifest byte for byte, and an index that keeps what it boots from alive.

Whatever refers to something goes after it, and the tag goes last, so that a registry never shows an image that is not
whole.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from shed.errors import ConflictError, NotFoundError, UsageError
from shed.images.annotations import EMPTY_CONFIG, BootAnnotations, boot_manifest, tag_index
from shed.images.references import find_image
from shed.images.transfer import Counter, at_once
from shed.oci import media
from shed.oci.content import BytesSource, FileSlice
from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest, digest_bytes, short
from shed.oci.fields import decode_object
from shed.oci.manifest import Manifest
from shed.oci.registry.client import Repository
from shed.oci.registry.reference import Reference, parse_reference
from shed.oci.store import LayoutStore
from shed.progress import Progress, Stop


@dataclass(frozen=True, slots=True)
class PushResult:
    """What was pushed; blobs are counted once, however often the image names them."""

    source: str
    destination: str
    digest: Digest
    """Of the image manifest."""
    index_digest: Digest
    """Of what the tag points at."""
    uploaded: int
    mounted: int
    """Blobs that the registry took over from another of its repositories."""
    exists: int
    """Blobs that were there."""
    uploaded_bytes: int
    timings: dict[str, float]
    """Milliseconds by phase."""


def push_image(
    store: LayoutStore,
    source: str,
    destination: str,
    *,
    insecure: bool = False,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> PushResult:
    """Push the image that `source` means to `destination`, ``registry/repository[:tag]``.

    Raises, before anything is sent, `ConflictError` (LAYERS_MISSING) when layers of it are not here, and `UsageError`
    for a destination that is a digest; later `RegistryError` and `UnavailableError`, and `DataError` when a blob here
    is damaged.
    """
    reference = parse_reference(destination)
    if reference.digest:
        raise UsageError(
            f"cannot push to {destination!r}: a digest is not a name", hint="push to a tag: registry/repository:tag"
        )
    progress = progress or Progress()
    stop = stop or Stop()
    progress.phase("check", f"checking {source}")
    found = find_image(store, source).digest
    with (
        store.lease() as lease,
        Repository(
            reference, push=True, insecure=insecure, private_hosts=store.limits.private_hosts, sleep=stop.sleep
        ) as repository,
    ):
        lease.image(found)
        image = _Image(store, source, found)
        stop.add_callback(repository.abort)
        progress.phase("blobs", f"pushing to {reference}")
        blobs = _Blobs(image, repository, Counter(progress, "image", sum(image.blobs.values()), stop))
        at_once(blobs.push, image.blobs, stop)
        progress.phase("manifest", f"naming it {reference}")
        index_digest = _name(image, repository)
    return PushResult(
        source=source,
        destination=str(reference),
        digest=image.digest,
        index_digest=index_digest,
        timings=progress.finish(),
        uploaded_bytes=blobs.uploaded_bytes,
        **blobs.counts,
    )


class _Image:
    """An image of the store, all of whose blobs are there."""

    def __init__(self, store: LayoutStore, source: str, digest: Digest) -> None:
        self.store = store
        self.digest = digest
        self.data = store.read_bytes(self.digest, what="image manifest")
        self.manifest = Manifest.parse(self.data, f"image manifest {short(digest)}")
        self.media_type = str(decode_object(self.data, "image manifest").get("mediaType", media.MANIFEST))
        self.annotations = BootAnnotations.parse(self.manifest.annotations)
        self.platform = store.read_config(self.manifest).platform
        layers = self.manifest.layers
        if not all(store.has(layer.digest) for layer in layers):
            origin = self.annotations.source_ref if "/" in self.annotations.source_ref else "REF"
            raise ConflictError(
                f"cannot push {source}: image layers not present locally",
                code="LAYERS_MISSING",
                hint=f"only what it boots from is here; get its layers too: shed image pull {origin} --with-layers",
            )
        self.boot_sizes = {}
        for what, blob in self.annotations.blobs().items():
            if not store.has(blob):
                raise NotFoundError(
                    f"cannot push {source}: its {what} blob {short(blob)} is missing from the local store",
                    code="BLOB_NOT_FOUND",
                    hint="pull or build the image again",
                )
            self.boot_sizes[blob] = store.size(blob)
        sizes = self.boot_sizes | {blob.digest: blob.size for blob in (*layers, self.manifest.config)}
        if self.boot_sizes:
            sizes[digest_bytes(EMPTY_CONFIG)] = len(EMPTY_CONFIG)
        self.blobs = dict(sorted(sizes.items(), key=lambda item: -item[1]))
        """All that is pushed before the manifests, with sizes; the largest first, so that none of them is left alone at
        the end.
        """


class _Blobs:
    """Pushes blobs, from several threads, and counts them."""

    def __init__(self, image: _Image, repository: Repository, counter: Counter) -> None:
        self.counts = {"uploaded": 0, "mounted": 0, "exists": 0}
        self.uploaded_bytes = 0
        self._store = image.store
        self._sizes = image.blobs
        self._repository = repository
        self._counter = counter
        self._origin = _beside(repository.reference, image.annotations.source_ref)
        self._lock = threading.Lock()

    def push(self, digest: Digest) -> None:
        """Have the registry hold a blob."""
        size = self._sizes[digest]
        if self._repository.has_blob(digest) is not None:
            how = "exists"
        elif self._origin and self._repository.mount_blob(digest, self._origin):
            how = "mounted"
        else:
            how = "uploaded"
            self._upload(digest)
        if how != "uploaded":
            self._counter.add(size)
        with self._lock:
            self.counts[how] += 1
            self.uploaded_bytes += size if how == "uploaded" else 0

    def _upload(self, digest: Digest) -> None:
        if digest == digest_bytes(EMPTY_CONFIG):
            self._repository.upload_blob(digest, BytesSource(EMPTY_CONFIG), on_bytes=self._counter.add)
            return
        self._store.verify(digest)
        with self._store.blob_path(digest).open("rb") as file:
            source = FileSlice(file.fileno(), 0, self._sizes[digest])
            self._repository.upload_blob(digest, source, on_bytes=self._counter.add)


def _name(image: _Image, repository: Repository) -> Digest:
    """Push the manifests and, last, the tag; return the digest that the tag then means."""
    tag = repository.reference.tag
    if not image.boot_sizes:
        return repository.put_manifest(tag, image.data, image.media_type)
    boot = boot_manifest(image.annotations, image.boot_sizes)
    repository.put_manifest(image.digest, image.data, image.media_type)
    repository.put_manifest(digest_bytes(boot), boot, media.MANIFEST)
    described = Descriptor(image.media_type, image.digest, len(image.data), platform=image.platform)
    return repository.put_manifest(tag, tag_index(described, boot), media.INDEX)


def _beside(target: Reference, source_ref: str) -> str | None:
    """Return the repository of `source_ref` when it is another one of the same registry."""
    try:
        source = parse_reference(source_ref)
    except UsageError:
        return None
    return source.repository if source.registry == target.registry and source.repository != target.repository else None
