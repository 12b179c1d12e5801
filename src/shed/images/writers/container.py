"""The second writer: ``mkfs.erofs`` of a pinned erofs-utils, in the build tools' container."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from uuid import UUID

from shed.entries import Entry
from shed.erofs import layout
from shed.erofs.compression import Compression
from shed.erofs.writer import content_uuid
from shed.errors import DataError, NotFoundError, StorageError
from shed.fsutil import storage_errors
from shed.images.build_tools import LOCAL_NAME, build_tools_reference
from shed.images.engine import WORK, Engine, find_engine
from shed.oci.staging import StagedBlob, staging_folder
from shed.oci.tarwrite import write_tar
from shed.run import ToolError

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
