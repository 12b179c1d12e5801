"""Fetching blobs of a registry into the store, for a pull and for a build.

Every blob is verified while it comes in and gets its name then; of a blob that was cut, the next fetch gets the rest
(`shed.oci.partial`).  No blob grows beyond the size that is known of it, and all of them keep to the store's budget
(`shed.budget`).  The caller holds a lease on the blobs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from shed.errors import DataError, NotFoundError
from shed.images.transfer import AT_ONCE, BlobCounter, Counter, at_once
from shed.oci.digest import Digest, short
from shed.oci.partial import PartialBlob, partials
from shed.oci.registry.client import Repository
from shed.oci.registry.reference import Reference
from shed.oci.store import LayoutStore
from shed.progress import BlobEvent, Progress, Stop

Check = Callable[[PartialBlob], None]
"""Looks at a blob whose digest is right before it gets its name.  Raises what keeps it from that."""


class Fetch:
    """The blobs of one image that are to be in the store: `wanted`, with sizes in bytes, None where nobody knows.

    `labels` are what people call them.  Creating it looks which of them are missing.  Raises `DataError`
    (IMAGE_TOO_LARGE), `StorageError` (DISK_RESERVE) and `NotFoundError` (NOT_IN_REGISTRY) before anything is fetched.
    """

    def __init__(
        self,
        store: LayoutStore,
        repository: Repository,
        wanted: Mapping[Digest, int | None],
        labels: Mapping[Digest, str],
        *,
        progress: Progress,
        stop: Stop,
    ) -> None:
        self.fetched: list[Digest] = []
        """The blobs that came, in the order in which they got their names."""
        self._store = store
        self._repository = repository
        self._wanted = wanted
        self._labels = labels
        self._progress = progress
        self._stop = stop
        self._missing = {digest: size for digest, size in wanted.items() if not store.intact(digest)}
        for digest, size in self._missing.items():
            self._missing[digest] = self._ask_size(digest) if size is None else size
        total = sum(size or 0 for size in self._missing.values())
        here = sum(status.st_size for digest, status in partials(store.blobs).items() if digest in self._missing)
        self._budget = store.budget()
        self._budget.expect(total, here=here)
        self._counter = Counter(progress, "image", total, stop)

    @property
    def existed(self) -> int:
        """How many of the blobs were here."""
        return len(self._wanted) - len(self.fetched)

    @property
    def fetched_bytes(self) -> int:
        """Bytes that came; what an earlier fetch had left of a blob is not among them."""
        return self._counter.done - self._counter.had

    def run(self, *, concurrency: int = AT_ONCE, checks: Mapping[Digest, Check] | None = None) -> None:
        """Fetch what is missing, at most `concurrency` blobs at a time; `checks` are made before a blob gets its name.

        Raises `NotFoundError`, `RegistryError`, `UnavailableError`, and `DataError` for what is damaged.
        """
        for digest in self._wanted:
            if digest not in self._missing:
                size = self._store.size(digest)
                self._progress.blob(BlobEvent(digest, self._labels[digest], "exists", size, size))
        at_once(partial(self._blob, checks or {}), self._missing, self._stop, most=concurrency)

    def _blob(self, checks: Mapping[Digest, Check], digest: Digest) -> None:
        """Have one blob in the store."""
        size = self._missing[digest]
        counter = BlobCounter(self._counter, self._progress, digest, self._labels[digest], size)
        with self._store.partial(digest, self._stop, self._budget) as blob:
            if self._store.intact(digest):  # somebody else has brought it meanwhile
                counter.skip(size or 0)
                counter.report("exists")
                return
            if blob.size > (size or 0):
                blob.clear()
            self._complete(blob, digest, size, counter)
            blob.sync()
            if check := checks.get(digest):
                check(blob)
            blob.commit(digest)
        self.fetched.append(digest)
        counter.report("done")

    def _complete(self, blob: PartialBlob, digest: Digest, size: int | None, counter: BlobCounter) -> None:
        """Fetch what `blob` lacks; all of it when what was kept turns out to be something else."""
        kept = blob.size
        counter.skip(kept)
        try:
            self._download(blob, digest, size, counter)
        except DataError as error:
            if not kept or error.code != "DIGEST_MISMATCH":
                raise
            self._progress.warn(
                f"what an earlier download left of blob {short(digest)} is damaged: all of it is fetched again"
            )
            counter.skip(-blob.size)
            blob.clear()
            self._download(blob, digest, size, counter)

    def _download(self, blob: PartialBlob, digest: Digest, size: int | None, counter: BlobCounter) -> None:
        try:
            self._repository.fetch_blob(digest, blob, size=size, start=blob.size, on_bytes=counter.add)
        except NotFoundError:
            raise _lacking(self._repository.reference, digest, self._labels[digest]) from None

    def _ask_size(self, digest: Digest) -> int | None:
        """Return the size of a blob as the registry says it; None when it does not."""
        size = self._repository.has_blob(digest)
        if size is None:
            raise _lacking(self._repository.reference, digest, self._labels[digest])
        return size or None


def _lacking(reference: Reference, digest: Digest, what: str) -> NotFoundError:
    return NotFoundError(
        f"{reference} lacks the {what} blob {short(digest)}",
        code="NOT_IN_REGISTRY",
        hint="it was copied in part, or garbage was collected: push it again, or copy all of it: skopeo copy --all",
    )
