"""Verifying images: the gate for a new root file system, and an image of the store once more.

No root file system gets into a manifest, whoever wrote it, before `verify_root` has passed it.  Mounting is no test of
an EROFS image, and neither is ``fsck.erofs``: both let pass what a kernel then cannot read.  So every inode is checked,
and every name, attribute and extent is read back by code that had no part in writing it.

`verify_image` looks at what the disk holds now.  All blobs that are here are read and compared with their digests; the
file systems are checked.  A deep verification unpacks and merges the layers again and compares every name, attribute
and byte of the root with them.  Where the layers are not here, it reads and decompresses every file of the root
instead, which shows that it can be read, but not that it is what the layers say.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

from shed.entries import Entry
from shed.erofs.checker import check
from shed.erofs.errors import ErofsError
from shed.erofs.verifier import verify_contents
from shed.errors import DataError, ShedError
from shed.images.annotations import BootAnnotations, boot_blobs
from shed.images.references import find_image
from shed.oci.content import FileSlice
from shed.oci.decompression import Spool
from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest, digest_fd, short
from shed.oci.flatten import flatten
from shed.oci.layers import per_layer, unpack_layer
from shed.oci.manifest import ImageConfig, Manifest
from shed.oci.store import LayoutStore
from shed.oci.tarstream import Member
from shed.oci.unpack_limits import Part, Unpacking
from shed.progress import Progress, Stop

_ROOT, _RUNTIME = "rootfs erofs", "runtime erofs"
_T = TypeVar("_T")
Counts = dict[str, int]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at, or should have been."""

    name: str
    status: Literal["PASS", "FAIL", "SKIP"]
    """SKIP: it could not be looked at, because it is not here, or because what it rests on has failed."""
    detail: str = ""
    """What is wrong, with the blob, or the inode and the rule; or why it was skipped, or what the check did instead."""
    counts: Counts = field(default_factory=dict)
    """How much of what was looked at: ``bytes``, ``inodes``, ``files``, …"""


@dataclass(frozen=True, slots=True)
class Verification:
    """What came of verifying an image."""

    name: str
    digest: Digest
    deep: bool
    valid: bool
    """No check failed."""
    checks: list[Check]
    timings: dict[str, float]
    """Milliseconds by phase."""

    def to_json(self) -> dict[str, Any]:
        """Return the result as the API has it."""
        return asdict(self)


def verify_image(
    store: LayoutStore,
    reference: str,
    *,
    deep: bool = False,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Verification:
    """Verify the image that `reference` means; what is wrong with it is in the result.

    Raises `NotFoundError` (IMAGE_NOT_FOUND) and, between two checks, `UnavailableError` when `stop` is set.
    """
    progress = progress or Progress()
    found = find_image(store, reference)
    run = _Run(store, found.digest, progress, stop or Stop())
    with store.lease() as lease:
        lease.image(found.digest)
        run.image(deep=deep)
    valid = all(done.status != "FAIL" for done in run.checks)
    return Verification(found.name, found.digest, deep, valid, run.checks, progress.finish())


def check_file_system(path: Path, name: str) -> None:
    """Raise `DataError` unless the EROFS file system at `path`, called `name`, obeys all rules.

    A kernel may mount one that does not, and fail to read it later.
    """
    try:
        check(path)
    except ErofsError as error:
        hint = "whoever made the image must build it again, with a current shed"
        raise DataError(f"{name} is unusable: {error.message} [{error.rule}]", code=error.code, hint=hint) from None


def verify_root(path: Path, file: BinaryIO, entries: Iterable[Entry]) -> Digest:
    """Check the root file system `path`, compare all of it with the `entries` that it was made from; return its digest.

    `file` is the same file, open.  Raises `ErofsError`, which names the inode or the path and the rule.
    """
    with ThreadPoolExecutor(1) as pool:
        digest = pool.submit(digest_fd, file.fileno())
        check(path)
        verify_contents(path, entries)
        return digest.result()


class _Run:
    """One verification; `checks` grows as it goes."""

    def __init__(self, store: LayoutStore, digest: Digest, progress: Progress, stop: Stop) -> None:
        self.checks: list[Check] = []
        self._store = store
        self._digest = digest
        self._progress = progress
        self._stop = stop

    def image(self, *, deep: bool) -> None:
        """Make all checks that can be made."""
        self._progress.phase("documents", f"verifying {short(self._digest)}")
        manifest = self._try("manifest", self._manifest)
        if manifest is None:
            return
        config = self._try("config", lambda counts: self._config(manifest, counts))
        boot = self._try("annotations", lambda _: boot_blobs(self._digest, BootAnnotations.parse(manifest.annotations)))
        self._progress.phase("blobs", "comparing blobs with their digests")
        sound = {what: self._blob(f"{what} blob", digest) for what, digest in (boot or {}).items()}
        layers = self._layers(manifest)
        if boot is None:
            return
        self._progress.phase("file systems", "checking the file systems")
        for what in (_RUNTIME, _ROOT):
            sound[what] = sound[what] and self._file_system(f"{what} inodes", boot[what], data=False)
        if deep:
            self._progress.phase("contents", "reading the whole root file system")
            if not sound[_ROOT] or config is None or layers == "FAIL":
                self.checks.append(Check("contents", "SKIP", "what it rests on has failed"))
            elif layers == "SKIP":
                why = "the layers are not here: every file was read and decompressed, and compared with nothing"
                self._file_system("contents", boot[_ROOT], data=True, detail=why)
            else:
                self._try("contents", lambda counts: self._contents(boot[_ROOT], manifest, config, counts))

    def _try(self, name: str, work: Callable[[Counts], _T], detail: str = "") -> _T | None:
        """Do `work`, which counts what it looks at, and note what came of it.

        Return its result, None when it failed.
        """
        self._stop.check()
        counts: Counts = {}
        try:
            result = work(counts)
        except ErofsError as error:
            self.checks.append(Check(name, "FAIL", f"{error.message} [{error.rule}]"))
        except ShedError as error:
            self.checks.append(Check(name, "FAIL", error.message))
        else:
            self.checks.append(Check(name, "PASS", detail, counts))
            return result
        return None

    def _manifest(self, counts: Counts) -> Manifest:
        manifest = self._store.read_manifest(self._digest)
        counts["bytes"] = self._store.size(self._digest)
        return manifest

    def _config(self, manifest: Manifest, counts: Counts) -> ImageConfig:
        config = self._store.read_config(manifest)
        if len(config.diff_ids) != len(manifest.layers):
            raise DataError(f"the config lists {len(config.diff_ids)} layers, the manifest {len(manifest.layers)}")
        counts["bytes"] = self._store.size(manifest.config.digest)
        return config

    def _blob(self, name: str, digest: Digest, size: int | None = None) -> bool:
        """Read a blob and compare it with its digest and, where it is known, its size; tell whether it passed."""

        def work(counts: Counts) -> bool:
            self._store.verify(digest, again=True)
            counts["bytes"] = self._store.size(digest)
            if size is not None and counts["bytes"] != size:
                raise DataError(f"blob {short(digest)} has {counts['bytes']} bytes, the manifest says {size}")
            return True

        return self._try(name, work) is not None

    def _layers(self, manifest: Manifest) -> Literal["PASS", "FAIL", "SKIP"]:
        """Check the layers that are here; SKIP when one is not, as in an image that is there for booting only."""
        sound = here = True
        for number, layer in enumerate(manifest.layers, 1):
            if self._store.has(layer.digest):
                sound = self._blob(f"layer {number}", layer.digest, layer.size) and sound
            else:
                here = False
                self.checks.append(
                    Check(f"layer {number}", "SKIP", f"blob {short(layer.digest)} is not here; booting needs no layers")
                )
        return "FAIL" if not sound else "PASS" if here else "SKIP"

    def _file_system(self, name: str, digest: Digest, *, data: bool, detail: str = "") -> bool:
        """Check every inode of a file system and, with `data`, decompress all there is; tell whether it passed."""

        def work(counts: Counts) -> bool:
            report = check(self._store.blob_path(digest), data=data)
            counts |= {
                "inodes": report.inodes,
                "files": report.kinds.get("file", 0),
                "extents": report.extents,
                "bytes": report.logical,
            }
            return True

        return self._try(name, work, detail) is not None

    def _contents(self, root: Digest, manifest: Manifest, config: ImageConfig, counts: Counts) -> None:
        """Unpack and merge the layers, and compare every name, attribute and byte of the root with them."""
        with contextlib.ExitStack() as stack:

            def read(layer: Descriptor, diff_id: Digest, part: Part) -> list[Member]:
                self._stop.check()
                file = stack.enter_context(self._store.blob_path(layer.digest).open("rb"))
                spool = stack.enter_context(Spool(self._store.scratch(), part))
                source = FileSlice(file.fileno(), 0, self._store.size(layer.digest))
                return unpack_layer(source, diff_id, spool=spool, part=part)

            layers = per_layer(manifest, config, Unpacking(self._store.reserve), read)
            seen = verify_contents(self._store.blob_path(root), flatten(layers))
        counts |= {"names": seen.names, "files": seen.files, "bytes": seen.data_bytes}
