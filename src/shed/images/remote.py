"""Images in registries: which one a reference means, and what a build takes of it.

A build reads the layers in the store, where they are fetched to; the documents, as the registry has them, are small.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from shed.budget import Budget
from shed.errors import DataError, ShedError
from shed.images.fetch import Fetch
from shed.oci import media
from shed.oci.content import FileSlice
from shed.oci.decompression import Spool
from shed.oci.descriptor import Descriptor, Platform
from shed.oci.digest import Digest, hex_of
from shed.oci.fields import MAX_JSON, decode_object
from shed.oci.manifest import Index
from shed.oci.registry.client import Repository
from shed.oci.registry.reference import parse_reference
from shed.oci.selection import SelectedImage, select_from
from shed.oci.store import LayoutStore
from shed.progress import Progress, Stop
from shed.untrusted import told

_MOST_TEXT = 500
_MAX_DOCUMENTS = 64 << 20
"""Most bytes of all documents that are read to choose an image: an index may list thousands, and indexes too."""


@contextlib.contextmanager
def told_plainly() -> Iterator[None]:
    """Keep what the documents of a registry say, as far as it comes into an error, short and visible."""
    try:
        yield
    except ShedError as error:
        error.message = told(error.message, _MOST_TEXT)
        raise


@told_plainly()
def find_remote(repository: Repository, platform: Platform | None) -> SelectedImage:
    """Return the image that the reference of `repository` means.

    It is an image, or one of an index, chosen as `choose_from` says.

    Raises `NotFoundError`, `DataError` for documents that are not what they should be, and `UsageError` when no image
    fits `platform`.
    """
    documents = _Documents(repository)
    found = repository.get_manifest(repository.reference.target)
    if "manifests" in decode_object(found.data, documents.name):
        index = Index.parse(found.data, f"image index of {documents.name}")
    else:
        index = Index((Descriptor(media.MANIFEST, found.digest, len(found.data)),))
        documents.known[found.digest] = found.data
    return select_from(documents, [index], platform)


@contextlib.contextmanager
def open_remote(
    reference: str, *, platform: Platform | None, store: LayoutStore, insecure: bool = False, progress: Progress
) -> Iterator[RemoteImage]:
    """Yield the image `reference` of a registry, chosen for `platform` as `shed.oci.selection` says.

    Raises `NotFoundError`, `RegistryError` and `UnavailableError`, `DataError` when its documents are damaged, and
    `UsageError` when no image fits.
    """
    remote = parse_reference(reference)
    stop = Stop()
    with contextlib.ExitStack() as stack:
        repository = stack.enter_context(
            Repository(remote, insecure=insecure, private_hosts=store.limits.private_hosts, sleep=stop.sleep)
        )
        stop.add_callback(repository.abort)
        progress.phase("manifest", f"looking up {remote}")
        chosen = find_remote(repository, platform)
        image = RemoteImage(repository, chosen, store, progress, stop)
        yield stack.enter_context(image)


class RemoteImage(contextlib.ExitStack):
    """An image of a registry, as an archive that holds it alone.

    Its documents are unnamed files until the ``with`` block ends.  Its layers are no files of the archive: they are in
    the store once `fetch_layers` has been called.
    """

    def __init__(
        self, repository: Repository, chosen: SelectedImage, store: LayoutStore, progress: Progress, stop: Stop
    ) -> None:
        super().__init__()
        self.name = str(repository.reference)
        self._repository = repository
        self._chosen = chosen
        self._store = store
        self._progress = progress
        self._stop = stop
        entry = Descriptor(media.MANIFEST, chosen.digest, len(chosen.manifest_bytes), platform=chosen.config.platform)
        documents = {
            "index.json": Index((entry,)).encode(),
            f"blobs/sha256/{hex_of(chosen.digest)}": chosen.manifest_bytes,
            f"blobs/sha256/{hex_of(chosen.manifest.config.digest)}": chosen.config_bytes,
        }
        self._files = {path: self._unnamed(data, store.scratch()) for path, data in documents.items()}

    def file(self, path: str) -> FileSlice | None:
        """Return the document at `path`, or None."""
        return self._files.get(path)

    def fetch_layers(self, fetched: list[Digest]) -> None:
        """Have all layers in the store, and add to `fetched` those that came; the caller holds a lease on them.

        Raises `NotFoundError`, `RegistryError` and `UnavailableError`, `DataError` when a layer is damaged or too
        large, and `StorageError`.
        """
        layers = {layer.digest: layer.size for layer in self._chosen.manifest.layers}
        labels = {layer.digest: f"layer {number}" for number, layer in enumerate(self._chosen.manifest.layers, 1)}
        largest_first = dict(sorted(layers.items(), key=lambda layer: -layer[1]))
        fetch = Fetch(self._store, self._repository, largest_first, labels, progress=self._progress, stop=self._stop)
        fetch.fetched = fetched
        self._progress.phase("download", f"downloading {self.name}")
        fetch.run()

    def _unnamed(self, data: bytes, scratch: Path) -> FileSlice:
        spool = self.enter_context(Spool(scratch, Budget(len(data))))
        spool.write(data)
        return spool.finish()


class _Documents:
    """Indexes, manifests and configs of a repository; what was read is kept."""

    def __init__(self, repository: Repository) -> None:
        self.name = str(repository.reference)
        self.known: dict[Digest, bytes] = {}
        self._repository = repository

    def read(self, descriptor: Descriptor, what: str) -> bytes:
        digest = descriptor.digest
        if digest not in self.known:
            if descriptor.size > MAX_JSON:
                raise DataError(f"{self.name}: {what} is too large")
            if sum(map(len, self.known.values())) + descriptor.size > _MAX_DOCUMENTS:
                raise DataError(
                    f"{self.name}: there is too much to choose from", hint="name the image by its digest: NAME@sha256:…"
                )
            if descriptor.media_type in (media.INDEX, media.MANIFEST):
                self.known[digest] = self._repository.get_manifest(digest).data
            else:
                self.known[digest] = self._repository.read_blob(digest, descriptor.size)
        if len(self.known[digest]) != descriptor.size:
            raise DataError(f"{self.name}: {what} has {len(self.known[digest])} bytes, expected {descriptor.size}")
        return self.known[digest]
