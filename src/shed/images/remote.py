"""Which image a reference to a registry means, with its documents as the registry has them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from shed.errors import DataError, ShedError
from shed.oci import media
from shed.oci.choose import Chosen, choose_from
from shed.oci.descriptor import Descriptor, Platform
from shed.oci.digest import Digest, digest_bytes
from shed.oci.fields import MAX_JSON, decode_object
from shed.oci.manifest import Index
from shed.oci.registry.client import Repository
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
def find_remote(repository: Repository, platform: Platform | None) -> Chosen:
    """Return the image that the reference of `repository` means: an image, or one of an index, chosen as `choose_from` says.

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
    return choose_from(documents, index, platform)


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
                memory = _Memory()
                self._repository.fetch_blob(digest, memory, size=descriptor.size)
                self.known[digest] = bytes(memory.data)
        if len(self.known[digest]) != descriptor.size:
            raise DataError(f"{self.name}: {what} has {len(self.known[digest])} bytes, expected {descriptor.size}")
        return self.known[digest]


class _Memory:
    """Where a small blob goes."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes, /) -> None:
        self.data += data

    def digest(self) -> Digest:
        return digest_bytes(bytes(self.data))
