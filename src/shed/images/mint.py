"""Minting: from an ordinary OCI image to a shed image, whose root file system is ready to be mounted.

The phases:

- **download**: the layers of an image in a registry are fetched into the store;
- **ingest** copies config and layers byte for byte, and unpacks the layers beside them.  A layer that is in the store
  is not copied;
- **flatten** merges them;
- **write** makes the EROFS blob;
- **check** is the gate: the checker, and a second reading of every name, attribute and extent, compared with what
  went in;
- **commit** gives the blobs their names, then writes the manifest, the index and, last, the tag.

Until the gate has passed, nothing in the store refers to the new blobs, and when it does not pass they are gone.
Downloaded layers stay when the work is cut, for the next try; when the image is at fault, they go too.  The same
archive, kit and options give the same digests on every machine.
"""

from __future__ import annotations

import contextlib
import gc
import os
import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from shed.entries import Entry
from shed.errors import DataError, NotFoundError, ShedError, UsageError
from shed.images import trust
from shed.images.annotations import BootAnnotations
from shed.images.prune import discard
from shed.images.remote import RemoteImage
from shed.images.transfer import Counter
from shed.images.verify import verify_root
from shed.images.writers import RootWriter, default_writer
from shed.names import check_image_name
from shed.oci import media
from shed.oci.archive import blaming, open_archive, open_blob
from shed.oci.content import Archive, FileSlice
from shed.oci.decompression import Spool
from shed.oci.descriptor import Descriptor, Platform
from shed.oci.digest import Digest, digest_bytes, short
from shed.oci.flatten import flatten
from shed.oci.layers import per_layer, read_layer, unpack_layer
from shed.oci.leases import Lease
from shed.oci.manifest import Manifest
from shed.oci.selection import SelectedImage, select_image
from shed.oci.staging import StagedBlob
from shed.oci.store import LayoutStore
from shed.oci.tarstream import Member
from shed.oci.unpack_limits import MAX_UNPACKED, TOO_LARGE, Part, Unpacking
from shed.progress import Progress, Stop
from shed.sizes import format_size

if TYPE_CHECKING:  # the kit's builder is large, and only its result is needed
    from shed.images.bootkit.kit import Kit

_LAYER_THREADS = 3


@dataclass(frozen=True, slots=True)
class MintResult:
    """What was minted."""

    name: str
    manifest_digest: Digest
    root_digest: Digest
    root_size: int
    """Bytes of the EROFS blob."""
    logical_size: int
    """Bytes of the files in it."""
    layers_size: int
    """Bytes of the layers as they came."""
    timings: dict[str, float]
    """Milliseconds by phase."""
    reused: bool
    """The store already had exactly this image, and nothing was done."""


def mint_archive(
    store: LayoutStore,
    source: Path | str,
    name: str,
    *,
    kit: Kit,
    writer: RootWriter | None = None,
    platform: Platform | None = None,
    source_ref: str = "",
    force: bool = False,
    progress: Progress | None = None,
) -> MintResult:
    """Mint the image in the archive `source` (file, layout folder, or ``-`` for stdin) as `name`; see `mint`."""
    check_image_name(name)
    progress = progress or Progress()
    origin = "stdin" if str(source) == "-" else str(source)
    progress.phase("ingest", f"reading {origin}")
    with contextlib.ExitStack() as stack:
        with blaming(origin):
            archive = stack.enter_context(open_archive(source, scratch=store.scratch(), reserve=store.reserve))
        return mint(
            store,
            archive,
            name,
            kit=kit,
            writer=writer,
            platform=platform,
            source_ref=source_ref,
            force=force,
            progress=progress,
        )


def mint(
    store: LayoutStore,
    archive: Archive,
    name: str,
    *,
    kit: Kit,
    writer: RootWriter | None = None,
    platform: Platform | None = None,
    source_ref: str = "",
    force: bool = False,
    progress: Progress | None = None,
) -> MintResult:
    """Mint the image in `archive` as `name`.

    `writer` writes the root (default: `default_writer`).  `platform` chooses among several
    images; `force` does the work even when the store has the result.  Raises `ShedError`s: the archive's faults are
    `DataError`, a full disk is `StorageError`; then the store is as it was, and the name still means what it meant.
    """
    check_image_name(name)
    writer = writer or default_writer(kit.erofs_algorithms)
    progress = progress or Progress()
    fetched: list[Digest] = []
    try:
        with contextlib.ExitStack() as stack:
            lease = stack.enter_context(store.lease())
            lease.blobs(kit.kernel, kit.initrd, kit.runtime)
            _check_kit(store, kit, writer)
            store.sweep()
            store.index()  # a damaged one is told now, not when all the work is done
            progress.phase("ingest")  # whoever opened the archive has said so
            stack.enter_context(_without_garbage_collection())
            with blaming(archive.name):
                chosen = select_image(archive, platform)
            _check_platform(chosen, kit)
            plan = _Plan(store=store, chosen=chosen, kit=kit, writer=writer, name=name, source_ref=source_ref)
            if not force and (known := plan.known()):
                return known
            lease.blobs(*(layer.digest for layer in chosen.manifest.layers))
            if isinstance(archive, RemoteImage):
                archive.fetch_layers(fetched)
                progress.phase("ingest", "reading the layers")
            return _Mint(plan, archive, lease, stack, progress).run()
    except DataError:  # another try would end the same
        with contextlib.suppress(ShedError):  # the first error is the one to tell
            discard(store, fetched)
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What is to be made, and what its manifest will say."""

    store: LayoutStore
    chosen: SelectedImage
    kit: Kit
    writer: RootWriter
    name: str
    source_ref: str

    def manifest(self, root: Digest, root_size: int, logical_size: int) -> Manifest:
        """Return the manifest: config and layers as they came, and what booting needs."""
        annotations = BootAnnotations(
            variant=self.name,
            source_ref=self.source_ref or self.name,
            root=root,
            kernel=self.kit.kernel,
            initrd=self.kit.initrd,
            runtime=self.kit.runtime,
            sizes={
                root: root_size,
                **{blob: self.store.size(blob) for blob in (self.kit.kernel, self.kit.initrd, self.kit.runtime)},
            },
            logical_size=logical_size,
            build_tools=self.writer.name,
        )
        source = self.chosen.manifest
        return Manifest(source.config, source.layers, {**_foreign(source.annotations), **annotations.encode()})

    def known(self) -> MintResult | None:
        """Return the image that `name` means already when minting would give the same, and all of it is here."""
        try:
            tag = self.store.tag(self.name)
            if tag is None:
                return None
            manifest = self.store.read_manifest(tag.digest)
            annotations = BootAnnotations.parse(manifest.annotations)
            if annotations.root is None or annotations.logical_size is None:
                return None
            if manifest != self.manifest(annotations.root, self.store.size(annotations.root), annotations.logical_size):
                return None
            for digest in (
                manifest.config.digest,
                *annotations.blobs().values(),
                *(layer.digest for layer in manifest.layers),
            ):
                self.store.verify(digest)
        except ShedError:  # whatever is wrong with what is there, minting makes it anew
            return None
        return self.result(
            tag.digest, annotations.root, self.store.size(annotations.root), annotations.logical_size, {}, reused=True
        )

    def result(
        self,
        manifest: Digest,
        root: Digest,
        root_size: int,
        logical_size: int,
        timings: dict[str, float],
        *,
        reused: bool,
    ) -> MintResult:
        """Return the result of minting this."""
        layers_size = sum(layer.size for layer in self.chosen.manifest.layers)
        return MintResult(self.name, manifest, root, root_size, logical_size, layers_size, timings, reused)


class _Mint:
    """One run; staged blobs and unpacked layers live until `stack` is closed."""

    def __init__(
        self, plan: _Plan, archive: Archive, lease: Lease, stack: contextlib.ExitStack, progress: Progress
    ) -> None:
        self._plan = plan
        self._store = plan.store
        self._archive = archive
        self._lease = lease
        self._stack = stack
        self._progress = progress
        self._staged: list[StagedBlob] = []
        self._synced: list[Future[None]] = []

    def run(self) -> MintResult:
        with ThreadPoolExecutor(1) as background:  # ends before the staged blobs are closed
            with blaming(self._archive.name):
                layers = self._ingest()
                self._sync(background, self._staged)
                self._progress.phase("flatten", "merging the layers")
                entries = list(flatten(layers))
                _check_size(entries)
            root = self._stage()
            self._progress.phase("write", f"writing the root file system: {len(entries)} files")
            self._write(entries, root)
            self._progress.phase("check", "checking the root file system")
            self._sync(background, [root])
            root_digest = verify_root(root.path, root.file, entries)
            self._progress.phase("commit", "storing the image")
            logical_size = sum(entry.size for entry in entries if entry.link is None and stat.S_ISREG(entry.mode))
            digest = self._commit(root, root_digest, logical_size)
        root_size = self._store.size(root_digest)
        return self._plan.result(digest, root_digest, root_size, logical_size, self._progress.finish(), reused=False)

    def _sync(self, background: ThreadPoolExecutor, blobs: list[StagedBlob]) -> None:
        """Start to make `blobs`, which are complete, durable; committing them then takes no time."""
        self._synced += [background.submit(blob.sync) for blob in blobs]

    def _stage(self) -> StagedBlob:
        blob = self._stack.enter_context(self._store.stage())
        self._staged.append(blob)
        return blob

    def _ingest(self) -> list[list[Member]]:
        """Unpack the layers and return their members, bottom first.

        The config, and each layer that is not in the store yet, are copied to staged blobs.
        """
        chosen = self._plan.chosen
        self._stage().write(chosen.config_bytes)
        sizes = {layer.digest: layer.size for layer in chosen.manifest.layers}
        stop = Stop()
        counter = Counter(self._progress, "layers", sum(sizes.values()), stop)
        with ThreadPoolExecutor(_LAYER_THREADS) as pool:
            here = dict(zip(sizes, pool.map(self._store.intact, sizes), strict=True))

            def read(layer: Descriptor, diff_id: Digest, part: Part) -> Future[list[Member]]:
                spool = self._stack.enter_context(Spool(self._store.scratch(), part))
                if here[layer.digest]:
                    unpack = partial(unpack_layer, self._stored(layer, part.what), diff_id)
                else:
                    source = open_blob(self._archive, layer, part.what)
                    unpack = partial(read_layer, source, layer, diff_id, blob=self._stage())
                return pool.submit(unpack, spool=spool, part=part, on_bytes=counter.add)

            tasks = per_layer(chosen.manifest, chosen.config, Unpacking(self._store.reserve), read)
            try:
                for task in as_completed(tasks):
                    task.result()
            except BaseException:
                stop.set()
                raise
        return [task.result() for task in tasks]

    def _stored(self, descriptor: Descriptor, what: str) -> FileSlice:
        """Return a layer that is in the store, its size checked."""
        size = self._store.size(descriptor.digest)
        if size != descriptor.size:
            raise DataError(f"{what} {short(descriptor.digest)} has {size} bytes, expected {descriptor.size}")
        file = self._stack.enter_context(self._store.blob_path(descriptor.digest).open("rb"))
        return FileSlice(file.fileno(), 0, size)

    def _write(self, entries: list[Entry], root: StagedBlob) -> None:
        counter = Counter(self._progress, "root", sum(entry.size for entry in entries), Stop())

        def count(size: int) -> None:
            self._store.reserve.check()  # what the writer writes goes by no budget
            counter.add(size)

        self._plan.writer.write(entries, root, count)

    def _commit(self, root: StagedBlob, root_digest: Digest, logical_size: int) -> Digest:
        for task in self._synced:
            task.result()
        root_size = os.fstat(root.file.fileno()).st_size  # all of it is synced
        data = self._plan.manifest(root_digest, root_size, logical_size).encode()
        source = self._plan.chosen.manifest
        self._lease.blobs(
            source.config.digest, *(layer.digest for layer in source.layers), root_digest, digest_bytes(data)
        )
        trust.add_kit(self._store, self._plan.kit)
        for blob in self._staged:
            blob.commit(root_digest if blob is root else None)
        digest = self._store.put_bytes(data)
        platform = self._plan.chosen.config.platform
        self._store.publish(Descriptor(media.MANIFEST, digest, len(data), platform=platform), self._plan.name)
        return digest


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Stop the garbage collector: it would walk, again and again, some 100,000 objects in use (5 % of the time)."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _foreign(annotations: Mapping[str, str]) -> dict[str, str]:
    """Return the annotations that the image came with, except those that only we may write."""
    return {key: value for key, value in annotations.items() if not key.startswith("io.shed.")}


def _check_size(entries: list[Entry]) -> None:
    """Refuse sparse files that would be larger than any disk.

    What is stored byte for byte was counted when it was unpacked.
    """
    total = sum(entry.size for entry in entries)
    if total > MAX_UNPACKED:
        raise DataError(
            f"the files of the image have {format_size(total)}, at most {format_size(MAX_UNPACKED)} are allowed",
            code=TOO_LARGE,
        )


def _check_kit(store: LayoutStore, kit: Kit, writer: RootWriter) -> None:
    for what, digest in (("kernel", kit.kernel), ("initrd", kit.initrd), ("runtime", kit.runtime)):
        if not store.has(digest):
            raise NotFoundError(
                f"the boot kit's {what} {short(digest)} is missing from the local store",
                hint="shed image bootkit build",
            )
    algorithm, readable = writer.algorithm, kit.erofs_algorithms
    if algorithm != "none" and algorithm not in readable:
        raise UsageError(
            f"the boot kit's kernel {kit.record.get('kernel_release', '')} cannot read EROFS compressed with "
            f"{algorithm}",
            code="COMPRESSION_NOT_READABLE",
            hint=f"it reads {', '.join(readable)}",
        )


def _check_platform(chosen: SelectedImage, kit: Kit) -> None:
    architecture = kit.record.get("architecture")
    platform = Platform("linux", architecture) if isinstance(architecture, str) else Platform.of_host()
    if not chosen.config.platform.matches(platform):
        raise UsageError(
            f"the image is for {chosen.config.platform}, the boot kit for {platform}",
            code="PLATFORM_MISMATCH",
            hint=f"get it for {platform}: skopeo copy --override-arch {platform.architecture} …",
        )
