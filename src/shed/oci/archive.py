"""Images from outside: an OCI archive (a tar file), a layout directory, the output of `docker save`, a stream.

Nothing in them is trusted: names are looked up, never used as paths on disk; sizes are compared with what is there;
links are refused. Who reads a blob compares its digest.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from shed.budget import Reserve
from shed.errors import REFUSALS, DataError, NotFoundError, StorageError
from shed.oci.content import Archive, FileSlice
from shed.oci.decompression import CHUNK, HEAD, SourceReader, Spool, compression, decoder_errors, decompressed
from shed.oci.descriptor import Descriptor
from shed.oci.digest import digest_bytes, hex_of, mismatch, short
from shed.oci.docker_archive import DockerArchive
from shed.oci.fields import MAX_JSON
from shed.oci.manifest import Index
from shed.oci.tarstream import read_tar
from shed.oci.unpack_limits import TOO_LARGE, Part, Unpacking
from shed.text import visible

MAX_ARCHIVE = 1 << 38
"""Most bytes of a stream or of a compressed archive, unpacked: 256 GiB."""
MAX_FILES = 100_000
"""Most files of an archive: an image has one for each layer, and a few more."""

_MAKE_ONE = "make an archive: skopeo copy … oci-archive:FILE"


@contextlib.contextmanager
def open_archive(source: Path | str, *, scratch: Path, reserve: Reserve | None = None) -> Iterator[Archive]:
    """Yield the image archive at `source`.

    It is a tar file (gzip, zstd and xz are unpacked), a layout directory, a pipe, or ``-`` for stdin.

    A docker archive looks like an OCI archive.  What cannot be read by position is first copied to an unnamed file in
    the folder `scratch`, whose file system keeps the `reserve`, the usual one unless given.  Raises `NotFoundError`,
    `DataError` when it is no OCI image or too large, `StorageError`, and OSError when it cannot be read.
    """
    with contextlib.ExitStack() as stack:
        place = _Place(scratch, reserve or Reserve(scratch), stack)
        archive: Archive = (
            _from_stream(sys.stdin.buffer, "stdin", place) if str(source) == "-" else _from_path(Path(source), place)
        )
        if archive.file("index.json") is None:
            if archive.file("manifest.json") is None:
                raise DataError(f"{archive.name} is not an OCI image: it has no index.json", hint=_MAKE_ONE)
            archive = DockerArchive(archive, scratch, stack)
        yield archive


@contextlib.contextmanager
def blaming(origin: str) -> Iterator[None]:
    """Let every error in the archive `origin` name it and say what to do, also an error of the disk that it is on."""
    try:
        yield
    except DataError as error:
        if origin not in error.message:
            error.message = f"{origin}: {error.message}"
        error.hint = error.hint or "the archive is damaged or was made wrongly: get it again"
        raise
    except OSError as error:
        if error.errno is None:
            raise
        raise StorageError(
            f"cannot read {origin}: {error.strerror}", hint=REFUSALS.get(error.errno, "check the path")
        ) from error


def read_index(archive: Archive) -> Index:
    """Return the archive's ``index.json``.  Raises `DataError`."""
    what = f"index.json of {archive.name}"
    file = archive.file("index.json")
    assert file is not None  # `open_archive` looked
    if file.size > MAX_JSON:
        raise DataError(f"{what} is too large")
    return Index.parse(file.pread(file.size, 0), what)


def open_blob(archive: Archive, descriptor: Descriptor, what: str) -> FileSlice:
    """Return the blob of `descriptor`, its size checked and its digest not yet.

    Raises `DataError`, which names `what`.
    """
    blob = archive.file(f"blobs/sha256/{hex_of(descriptor.digest)}")
    if blob is None:
        raise DataError(
            f"{archive.name}: {what} {short(descriptor.digest)} is missing",
            hint="the archive is incomplete: make it again",
        )
    if blob.size != descriptor.size:
        raise DataError(
            f"{archive.name}: {what} {short(descriptor.digest)} has {blob.size} bytes, expected {descriptor.size}"
        )
    return blob


def read_blob(archive: Archive, descriptor: Descriptor, what: str) -> bytes:
    """Return a small blob, verified.  Raises `DataError`, which names `what`."""
    blob = open_blob(archive, descriptor, what)
    if blob.size > MAX_JSON:
        raise DataError(f"{archive.name}: {what} is too large")
    data = blob.pread(blob.size, 0)
    if digest_bytes(data) != descriptor.digest:
        raise mismatch(f"{archive.name}: {what}", descriptor.digest, digest_bytes(data))
    return data


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an archive is unpacked to, until `stack` is closed."""

    scratch: Path
    reserve: Reserve
    stack: contextlib.ExitStack

    def part(self, name: str) -> Part:
        """Return what counts the files and bytes of the archive `name`."""
        return Unpacking(self.reserve, bytes_=MAX_ARCHIVE, members=MAX_FILES).part(name)

    def spool(self, part: Part) -> Spool:
        """Return a file to unpack to."""
        return self.stack.enter_context(Spool(self.scratch, part))


class _Folder:
    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.name = str(folder)
        self._folder = folder
        self._stack = stack

    def file(self, path: str) -> FileSlice | None:
        try:
            fd = os.open(self._folder / path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        self._stack.callback(os.close, fd)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{self.name}: {visible(path)} is not a regular file")
        return FileSlice(fd, 0, status.st_size)


class _Tar:
    def __init__(self, source: FileSlice, name: str, part: Part) -> None:
        self.name = name
        self._files: dict[str, FileSlice | None] = {}
        """None for what is no plain file: folders, links, sparse members."""
        for member in read_tar(source, part):
            path = os.fsdecode(b"/".join(part for part in member.name.split(b"/") if part not in (b"", b".")))
            whole = member.content or FileSlice(source.fd, 0, 0)
            content = whole if stat.S_ISREG(member.mode) and isinstance(whole, FileSlice) else None
            if content and self._files.get(path):
                raise DataError(
                    f"it holds {path!r} twice", hint="readers would not agree on what it holds: make it again"
                )
            self._files[path] = content

    def file(self, path: str) -> FileSlice | None:
        if path not in self._files:
            return None
        found = self._files[path]
        if found is None:
            raise DataError(f"{self.name}: {visible(path)} is not a regular file")
        return found


def _from_path(path: Path, place: _Place) -> Archive:
    if path.is_dir():
        return _Folder(path, place.stack)
    try:
        file = place.stack.enter_context(path.open("rb"))
    except FileNotFoundError:
        raise NotFoundError(f"{path} does not exist", code="ARCHIVE_NOT_FOUND", hint="check the path") from None
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        return _from_stream(file, str(path), place)
    return _from_file(FileSlice(file.fileno(), 0, status.st_size), str(path), place)


def _from_stream(file: BinaryIO, name: str, place: _Place) -> Archive:
    part = place.part(name)
    spool = place.spool(part)
    while data := file.read(CHUNK):
        part.took(len(data))
        spool.write(data)
    return _from_file(spool.finish(), name, place)


def _from_file(source: FileSlice, name: str, place: _Place) -> Archive:
    if not source.size:
        raise DataError(f"{name} is empty", hint=_MAKE_ONE)
    part = place.part(name)
    head = source.pread(HEAD, 0)
    if compression(head, of_archive=True):
        spool = place.spool(part)
        with decoder_errors(name):
            for data in decompressed(SourceReader(source, lambda data: part.took(len(data))), head):
                spool.write(data)
        source = spool.finish()
    try:
        return _Tar(source, name, part)
    except DataError as error:
        if error.code == TOO_LARGE:
            raise
        raise DataError(
            f"{name} is not a readable tar archive: {error.message}",
            hint=error.hint or f"if it was cut, get it again; {_MAKE_ONE}",
        ) from None
