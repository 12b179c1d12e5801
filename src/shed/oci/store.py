"""The image store: an OCI image layout, with shed's tags and locks beside the blobs.

::

    oci-layout                          {"imageLayoutVersion": "1.0.0"}
    index.json                          one entry per tag, and one for each manifest without a tag
    blobs/sha256/HEX                    mode 0444, verified before they get this name, never changed
    blobs/sha256/.HEX.lock              flock: held while the blob is given its name
    blobs/sha256/.staging-*.tmp         blobs being written; flock: held by their writer
    blobs/sha256/.partial-HEX           see `shed.oci.partial`
    verified/HEX                        what the blob's file looked like when its digest was last compared
    tags/NAME.json                      {"digest": "sha256:…", "updated_at": RFC 3339}
    tags/NAME.lock, .index.lock         flock: held while the tag, the index, is changed
    refs/HEX.json                       see `shed.images.references`
    leases/, .gc.lock                   see `shed.oci.leases`

Other OCI tools read the layout.  Lock files are never removed: a second process could lock a new file of the same name
while the first still holds the old one.  A blob that is wanted is written as a `StagedBlob` first; until it is
committed nothing refers to it, and a crash leaves a ``.tmp`` file that `sweep` removes.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from shed.budget import DEFAULT_LIMITS, Budget, Limits, Reserve
from shed.errors import DataError, NotFoundError, ShedError
from shed.fsutil import atomic_write, locked, private_folder
from shed.names import check_image_name
from shed.oci import media
from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest, digest_bytes, hex_of, is_digest, mismatch, parse_digest, short
from shed.oci.fields import MAX_JSON, Fields, decode_object
from shed.oci.leases import Lease, lease
from shed.oci.manifest import LAYOUT, REF_NAME, ImageConfig, Index, Manifest
from shed.oci.partial import PartialBlob, sweep_partials
from shed.oci.staging import StagedBlob, sweep
from shed.oci.verified import VerifiedBlobs
from shed.progress import Stop


@dataclass(frozen=True, slots=True)
class Tag:
    """A name in the store, the manifest it points at, and when it was last moved (RFC 3339)."""

    name: str
    digest: Digest
    updated_at: str


class LayoutStore:
    """The store in the folder `root`; the folder is made when something is first written.

    Images that come in keep to `limits`.
    """

    def __init__(self, root: Path, limits: Limits = DEFAULT_LIMITS) -> None:
        self.root = root
        self.limits = limits
        self.reserve = Reserve(root, limits.disk_reserve)
        """What stays free on its disk, whatever is written to it."""
        self.blobs = root / "blobs/sha256"
        self.tags = root / "tags"
        self._verified = VerifiedBlobs(self.blobs, root / "verified")

    # blobs

    def blob_path(self, digest: str) -> Path:
        """Return where the blob is, or would be."""
        return self.blobs / hex_of(parse_digest(digest))

    def has(self, digest: str) -> bool:
        """Tell whether the blob is here."""
        return self.blob_path(digest).is_file()

    def size(self, digest: str) -> int:
        """Return the blob's size in bytes.  Raises `NotFoundError`."""
        try:
            return self.blob_path(digest).stat().st_size
        except FileNotFoundError:
            raise _missing(digest) from None

    def blob_digests(self) -> list[Digest]:
        """Return all blobs that are here, sorted."""
        return sorted(self.inventory())

    def inventory(self) -> dict[Digest, os.stat_result]:
        """Return what ``stat`` says of each blob: one pass over the folder, however many there are."""
        found = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self.blobs) as entries:
            for entry in entries:
                if len(entry.name) == 64 and is_digest(digest := f"sha256:{entry.name}"):
                    try:
                        found[Digest(digest)] = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:  # pruned while we look
                        continue
        return found

    def lease(self) -> contextlib.AbstractContextManager[Lease]:
        """Keep blobs and images that nothing refers to yet from being pruned, until the block ends.

        See `shed.oci.leases`.
        """
        self._prepare()
        return lease(self.root)

    @contextlib.contextmanager
    def stage(self) -> Iterator[StagedBlob]:
        """Yield a new blob to write to; it vanishes with the block unless it was committed."""
        self._prepare()
        with StagedBlob.create(self.blobs, self.reserve.check) as blob:
            yield blob

    def partial(
        self, digest: Digest, stop: Stop, budget: Budget | None = None
    ) -> contextlib.AbstractContextManager[PartialBlob]:
        """Have what is here of a blob that is being downloaded, to go on with it out of `budget`.

        See `shed.oci.partial`.
        """
        self._prepare()
        return PartialBlob.opened(self.blobs, digest, stop, self.reserve.check if budget is None else budget.spend)

    def ingest(self, chunks: Iterable[bytes], *, digest: Digest | None = None, size: int | None = None) -> Digest:
        """Write the bytes of `chunks` as a blob and return its digest.

        Raises `DataError` when they are not what `digest` and `size` say, and `StorageError` when the disk refuses;
        then nothing is left.
        """
        with self.stage() as blob:
            for chunk in chunks:
                blob.write(chunk)
                if size is not None and blob.size > size:
                    break
            if size is not None and blob.size != size:
                got = f"more than {size}" if blob.size > size else str(blob.size)
                raise DataError(
                    f"blob {short(digest) if digest else ''} has {got} bytes, expected {size}".replace("  ", " ")
                )
            if digest is not None and blob.digest() != digest:
                raise mismatch(f"blob {short(digest)}", digest, blob.digest())
            return blob.commit()

    def put_bytes(self, data: bytes) -> Digest:
        """Store `data` as a blob and return its digest; one that is already here stays, unless it is damaged."""
        digest = digest_bytes(data)
        with contextlib.suppress(FileNotFoundError):
            if self.blob_path(digest).read_bytes() == data:
                return digest
        return self.ingest([data])

    def read_bytes(self, digest: str, *, what: str = "blob") -> bytes:
        """Return a small blob, verified.  Raises `NotFoundError` and `DataError`."""
        path = self.blob_path(digest)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_JSON + 1)
        except FileNotFoundError:
            raise _missing(digest, what) from None
        except IsADirectoryError:
            raise DataError(
                f"{what} {short(digest)} is a folder: the store was made by v0.4", hint=f"move {self.root} away"
            ) from None
        if len(data) > MAX_JSON:
            raise DataError(f"{what} {short(digest)} is too large")
        if digest_bytes(data) != digest:
            raise mismatch(f"{what} {short(digest)}", digest, digest_bytes(data))
        return data

    def read_manifest(self, digest: str) -> Manifest:
        """Return the image manifest with this digest.  Raises `NotFoundError` and `DataError`."""
        return Manifest.parse(self.read_bytes(digest, what="image manifest"), f"image manifest {short(digest)}")

    def manifests(self) -> Iterator[tuple[Digest, Manifest]]:
        """Yield all image manifests that are here, those too that no tag and no index names."""
        for digest, status in self.inventory().items():
            if status.st_size <= MAX_JSON:
                with contextlib.suppress(ShedError, OSError):  # something else, or damaged
                    yield digest, self.read_manifest(digest)

    def read_config(self, manifest: Manifest) -> ImageConfig:
        """Return the config of `manifest`.  Raises `NotFoundError` and `DataError`."""
        digest = manifest.config.digest
        return ImageConfig.parse(self.read_bytes(digest, what="image config"), f"image config {short(digest)}")

    def verify(self, digest: str, *, again: bool = False) -> None:
        """Compare a blob with its digest, unless that was done and the file is unchanged since.

        With `again`, in any case.

        Raises `NotFoundError` and `DataError` (DIGEST_MISMATCH).
        """
        try:
            self._verified.verify(parse_digest(digest), again=again)
        except FileNotFoundError:
            raise _missing(digest) from None

    def intact(self, digest: str) -> bool:
        """Tell whether the blob is here and is what its digest says; see `verify`."""
        try:
            self.verify(digest)
        except (NotFoundError, DataError):
            return False
        return True

    def budget(self) -> Budget:
        """Return what one image that is fetched may take."""
        return Budget(
            self.limits.max_image_size,
            reserve=self.reserve,
            what="the image has",
            hint="if that is no mistake, raise limits.max_image_size in server.yaml",
        )

    def scratch(self) -> Path:
        """Return the folder for unnamed temporary files, on the disk that holds the blobs."""
        self._prepare()
        return self.blobs

    def sweep(self) -> int:
        """Remove what crashed writers left in ``blobs`` and nobody will go on with; return how many files.

        Safe while others write.
        """
        return sweep(self.blobs) + sweep_partials(self.blobs) if self.blobs.is_dir() else 0

    # tags and the index

    def tag(self, name: str) -> Tag | None:
        """Return the tag called `name`, or None.  Raises `DataError` when its file is damaged."""
        path = self._tag_path(name)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        what = f"tag file {path}"
        try:
            fields = Fields(decode_object(data, what), what)
            return Tag(name, parse_digest(fields.text("digest")), fields.text("updated_at", ""))
        except DataError as error:
            where = "" if what in error.message else f"{what}: "
            raise DataError(
                f"{where}{error.message}", hint=f"build or pull the image again under the name {name}"
            ) from None

    def tag_names(self) -> list[str]:
        """Return the names of all tags, sorted, those with damaged files too."""
        if not self.tags.is_dir():
            return []
        return sorted(
            path.stem for path in self.tags.iterdir() if path.suffix == ".json" and not path.name.startswith(".")
        )

    def index(self) -> Index:
        """Return ``index.json``; of a store that is not there yet, an empty one.  Raises `DataError`."""
        path = self.root / "index.json"
        try:
            return Index.parse(path.read_bytes(), str(path))
        except FileNotFoundError:
            return Index()
        except DataError as error:
            hint = "move the file away: the next image that is built makes a new one from the tags"
            raise DataError(error.message, hint=hint) from None

    def publish(self, manifest: Descriptor, name: str) -> None:
        """Make `name` the tag of a manifest that is in the store: first in the index, last the tag itself."""
        path = self._tag_path(name)
        self._prepare()
        entry = Descriptor(manifest.media_type, manifest.digest, manifest.size, {REF_NAME: name}, manifest.platform)
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        with locked(self.tags / f"{name}.lock"):
            with self._index_locked():
                self._write_index(self.index().with_tag(entry))
            atomic_write(path, json.dumps({"digest": manifest.digest, "updated_at": now}))

    def keep(self, manifest: Descriptor) -> None:
        """List a manifest that is in the store without giving it a name; one that is listed already stays as it is."""
        self._prepare()
        with self._index_locked():
            index = self.index()
            if all(entry.digest != manifest.digest for entry in index.manifests):
                self._write_index(Index((*index.manifests, replace(manifest, annotations={}))))

    def untag(self, name: str, *, digest: Digest | None = None) -> None:
        """Remove the tag `name`, when `digest` is given only as long as it means that.

        Its manifest stays listed without a name.

        Raises `NotFoundError`.
        """
        path = self._tag_path(name)
        if not path.exists():
            raise NotFoundError(f"no image is called {name!r}", code="IMAGE_NOT_FOUND", hint="see `shed image ls`")
        with locked(self.tags / f"{name}.lock"):
            if digest is not None and (tag := self.tag(name)) and tag.digest != digest:
                raise NotFoundError(
                    f"{name!r} means another image by now", code="IMAGE_NOT_FOUND", hint="see `shed image ls`"
                )
            path.unlink(missing_ok=True)
            with self._index_locked():
                self._write_index(self.index().without_tag(name))

    def unlist(self, digests: Collection[Digest]) -> None:
        """Remove these manifests from the index, under whatever names."""
        with self._index_locked():
            self._write_index(self.index().without_manifests(digests))

    def _tag_path(self, name: str) -> Path:
        return self.tags / f"{check_image_name(name)}.json"

    def _index_locked(self) -> contextlib.AbstractContextManager[None]:
        return locked(self.root / ".index.lock")

    def _write_index(self, index: Index) -> None:
        atomic_write(self.root / "index.json", index.encode())

    def _prepare(self) -> None:
        if (self.root / "index.json").exists() and self.blobs.is_dir() and self.tags.is_dir():
            return
        if not self.root.parent.exists():
            private_folder(self.root.parent)
        for folder in (self.root, self.blobs.parent, self.blobs, self.tags):
            private_folder(folder)
        with self._index_locked():
            if not (self.root / "oci-layout").exists():
                atomic_write(self.root / "oci-layout", LAYOUT)
            if not (self.root / "index.json").exists():
                self._write_index(self._index_of_tags())

    def _index_of_tags(self) -> Index:
        """Return an index of all tags whose images are here, for a store that has lost its own."""
        entries = []
        for name in self.tag_names():
            with contextlib.suppress(ShedError):  # a damaged tag is told when it is used
                tag = self.tag(name)
                if tag is not None:
                    platform = self.read_config(self.read_manifest(tag.digest)).platform
                    entries.append(
                        Descriptor(media.MANIFEST, tag.digest, self.size(tag.digest), {REF_NAME: name}, platform)
                    )
        return Index(tuple(entries))


def _missing(digest: str, what: str = "blob") -> NotFoundError:
    return NotFoundError(
        f"{what} {short(digest)} is not in the local store", code="BLOB_NOT_FOUND", hint="build or pull the image again"
    )
