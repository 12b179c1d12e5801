"""Who writes the root file system: pinned writers behind one interface.  What they write goes through the same gate.

`BuiltinWriter` is the default: shed's own EROFS writer, in this process.  `ContainerWriter` runs ``mkfs.erofs`` of a
pinned erofs-utils in a container; `build_tools_reference` says from which image that is taken.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Protocol
from uuid import UUID

from shed.entries import Entry
from shed.erofs import layout
from shed.erofs.compression import Compression
from shed.erofs.writer import WriterOptions, content_uuid, write_image, writer_name
from shed.errors import DataError, NotFoundError, StorageError, UsageError
from shed.fsutil import storage_errors
from shed.images.engine import WORK, Engine, find_engine
from shed.oci.staging import StagedBlob, staging_folder
from shed.oci.tarwrite import write_tar
from shed.run import ToolError
from shed.version import VERSION, release_tag


class RootWriter(Protocol):
    """Writes a tree as an EROFS image.  The same tree gives the same bytes on every machine, at any time."""

    @property
    def name(self) -> str:
        """All that decides the bytes: writer, versions, compression; recorded as ``io.shed.build-tools``."""
        ...

    @property
    def algorithm(self) -> str:
        """What the guest's kernel must be able to decompress: ``lz4``, ``zstd``, or ``none``."""
        ...

    def write(self, entries: Sequence[Entry], blob: StagedBlob, on_bytes: Callable[[int], None]) -> None:
        """Write the tree of `entries` as the content of `blob`, which is new, through ``blob.file``.

        `on_bytes` hears how many more bytes of file data are done.  Raises `ShedError`; the blob is thrown away then.
        """
        ...


def best_compression(readable: Collection[str]) -> Compression:
    """Return the default compression: zstd where the kernel, which reads `readable`, has it, else LZ4.

    zstd at its level 3 is 0.73 of LZ4's size and written in little more time; a guest that reads it cold takes a tenth
    longer.
    """
    return Compression.parse("zstd" if "zstd" in readable else "lz4")


class BuiltinWriter:
    """Writes with `shed.erofs.writer`; pinned by the release of shed and of the codecs."""

    def __init__(self, compression: Compression | None = None) -> None:
        self._compression = compression or Compression()

    @property
    def name(self) -> str:
        """Shed's version, the codec's, and the compression."""
        return f"{writer_name(self._compression)} {self._compression}"

    @property
    def algorithm(self) -> str:
        """What the guest's kernel must be able to decompress."""
        return self._compression.decoder

    def write(self, entries: Sequence[Entry], blob: StagedBlob, on_bytes: Callable[[int], None]) -> None:
        """Write the tree; see `RootWriter.write`."""
        with storage_errors(blob.path):
            write_image(entries, blob.file, WriterOptions(compression=self._compression, on_progress=on_bytes))
            blob.file.flush()


def default_writer(readable: Collection[str]) -> RootWriter:
    """Return what writes for a kernel that reads `readable`, when nothing else is asked for."""
    return BuiltinWriter(best_compression(readable))


_MKFS = "mkfs.erofs"
_TAR, _IMAGE = "rootfs.tar", "rootfs.erofs"
_CLUSTER_SIZE = 64 << 10
_OPTIONS = ("--quiet", "-b4096", f"-C{_CLUSTER_SIZE}", "-T0", "--mkfs-time", "-Eforce-inode-extended", "--tar=f")
"""Blocks of 4 KiB, as hosts with larger pages would choose others; ``--mkfs-time`` lets ``-T0`` date the image alone
and not its files. A compact inode cannot carry a time, and mkfs.erofs 1.9.4 takes one, and loses the nanoseconds, when
the seconds are those of ``-T``.
"""
_VERSION = re.compile(r"mkfs\.erofs \(erofs-utils\) (\S+)")


class ContainerWriter:
    """Writes with mkfs.erofs; pinned by the image that it is taken from, which holds its compressors too."""

    def __init__(
        self, wanted: str | None = None, compression: Compression | None = None, *, engine: Engine | None = None
    ) -> None:
        """Find the image that `wanted` means, in `engine` or in the one that works.

        Raises `UnavailableError` (NO_CONTAINER_ENGINE), `NotFoundError` (NO_BUILD_TOOLS), `ToolError` when the image
        cannot be pulled or run, and `DataError` when it is another.
        """
        self._compression = compression or Compression()
        self._engine = engine or find_engine()
        self._reference = build_tools_reference(wanted)
        self._image = _image(self._engine, self._reference)
        self._version = _version(self._engine, self._image, self._reference)

    @property
    def name(self) -> str:
        """The tool's version, the image that it is from, and its options."""
        image = self._reference if "@" in self._reference else f"{self._reference}@{self._image}"
        return f"erofs-utils/{self._version} {image} {' '.join(self._options())}"

    @property
    def algorithm(self) -> str:
        """What the guest's kernel must be able to decompress."""
        return self._compression.decoder

    def write(self, entries: Sequence[Entry], blob: StagedBlob, on_bytes: Callable[[int], None]) -> None:
        """Write the tree; see `RootWriter.write`.  Beside the blob it takes the space of all contents twice."""
        with staging_folder(blob.path.parent) as work:
            with storage_errors(work):
                os.link(blob.path, work / _IMAGE)  # so that what the tool writes is in the blob
                identity = _write_tar(work / _TAR, write_tar(entries, on_bytes))
            words = [_MKFS, *self._options(), f"-U{identity}", f"{WORK}/{_IMAGE}", f"{WORK}/{_TAR}"]
            try:
                self._engine.run(self._image, words, work=work)
            except ToolError as error:
                needed = 2 * (work / _TAR).stat().st_size
                if shutil.disk_usage(work).free > needed and os.strerror(errno.ENOSPC) not in error.message:
                    raise
                hint = f"it may take {(needed >> 20) + 1} MiB of space in {blob.path.parent}, which has less: free some"
                raise StorageError(error.message, hint=hint) from None  # the tool itself calls a full disk an I/O error
        _check_magic(blob)

    def _options(self) -> list[str]:
        algorithm, level = self._compression.algorithm, self._compression.level
        compress = [] if algorithm == "none" else [f"-z{algorithm},{level}" if level else f"-z{algorithm}"]
        return [*_OPTIONS, *compress]


def _image(engine: Engine, reference: str) -> str:
    """Return the identifier of the image; it is pulled if it is missing, and if a registry can have it."""
    image = engine.image_id(reference)
    if image is None and not reference.startswith(f"{LOCAL_NAME}:"):
        engine.pull(reference)
        image = engine.image_id(reference)
    if image is None:
        raise NotFoundError(
            f"{engine.program} has no image {reference}", code="NO_BUILD_TOOLS", hint="make it: make build-tools"
        )
    return image


def _version(engine: Engine, image: str, reference: str) -> str:
    """Return the version of the image's mkfs.erofs: running it shows that the image can be used."""
    text = engine.run(image, [_MKFS, "--version"]).stdout.decode(errors="replace")
    match = _VERSION.search(text)
    if match is None:
        raise DataError(
            f"{_MKFS} of {reference} is not the one of erofs-utils: {text[:100]!r}", hint="name an image of build tools"
        )
    return match[1]


def _write_tar(path: Path, pieces: Iterable[bytes]) -> UUID:
    """Write the tar, with holes for zeros, and return a UUID that stands for its content."""
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for piece in pieces:
            digest.update(piece)
            if piece.count(0) == len(piece):
                file.seek(len(piece), os.SEEK_CUR)
            else:
                file.write(piece)
        file.truncate()
    return content_uuid(digest.digest())


def _check_magic(blob: StagedBlob) -> None:
    """Refuse what is no EROFS image, before anybody reads more of it."""
    magic = os.pread(blob.file.fileno(), 4, layout.SUPER_OFFSET)
    if magic != layout.MAGIC.to_bytes(4, "little"):
        raise DataError(
            f"{_MKFS} wrote no EROFS image: it begins with {magic.hex() or 'nothing'}", hint="report this as a bug"
        )


def choose_writer(*, compression: str | None, build_tools: str | None) -> RootWriter | None:
    """Return the writer: the built-in one, unless a version of the build tools is named.

    None, the default of minting, is returned when nothing is given.

    Raises `UsageError`; and, when there is no engine or no image, what `ContainerWriter` raises.
    """
    how = None if compression is None else Compression.parse(compression)
    if build_tools is None:
        return None if how is None else BuiltinWriter(how)
    return ContainerWriter(
        build_tools, how or Compression.parse("zstd")
    )  # minting refuses it for a kernel that cannot read it


REGISTRY_NAME = "ghcr.io/charliek/shed-build-tools"
"""Where releases are published."""
LOCAL_NAME = "shed-build-tools"
"""What is made on this machine, which no registry has."""
DEVELOPMENT = f"{LOCAL_NAME}:dev"
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*")


def build_tools_reference(wanted: str | None, *, version: str = VERSION) -> str:
    """Return the reference of the image that `wanted` means.

    What has a ``/`` or a ``:`` is a reference already; ``X.Y.Z``, with or without ``v``, is a release; any other word
    is a tag of this machine's own image.  None is the release of this `version` of shed, and in a development build
    this machine's `DEVELOPMENT`. Raises `UsageError`.
    """
    if wanted is None:
        tag = release_tag(version)
        return f"{REGISTRY_NAME}:{tag}" if tag else DEVELOPMENT
    if not _REFERENCE.fullmatch(wanted):
        raise UsageError(
            f"invalid build tools version {wanted!r}",
            hint="use a release such as v0.5.2, a local tag, or an image reference",
        )
    if "/" in wanted or ":" in wanted:
        return wanted
    tag = release_tag(wanted)
    return f"{REGISTRY_NAME}:{tag}" if tag else f"{LOCAL_NAME}:{wanted}"
