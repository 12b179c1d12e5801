"""Writing an OCI archive: a tar file with a layout in it, to a file or into a pipe.

Every time and owner is zero, so the same documents and blobs in the same order give the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from shed.errors import NotFoundError
from shed.fsutil import atomic_file, public_mode, storage_errors
from shed.oci.digest import Digest, hex_of, mismatch, short
from shed.oci.manifest import LAYOUT

_CHUNK = 1 << 20


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Have the file `path` to write to, which appears when it is complete.

    What is there and no regular file (a pipe, a device) is written to as it is.  Raises `NotFoundError` without a
    folder for it, `StorageError`.
    """
    target = path.resolve()  # a link stays: what it points at is replaced
    if target.exists() and not target.is_file():
        with storage_errors(path), target.open("wb") as output:
            yield output
        return
    if not target.parent.is_dir():
        raise NotFoundError(f"the folder {target.parent} does not exist", hint="make it, or choose another place")
    with atomic_file(target, mode=public_mode()) as output:
        yield output


def blob_name(digest: Digest) -> str:
    """Return the name of a blob in an archive."""
    return f"blobs/sha256/{hex_of(digest)}"


class ArchiveWriter:
    """An archive on its way to `output`, which may be a pipe."""

    def __init__(self, output: BinaryIO) -> None:
        self._output = output
        self._size = 0
        self.add("oci-layout", LAYOUT)

    def add(self, name: str, data: bytes) -> None:
        """Add a file that holds `data`."""
        self._header(name, len(data))
        self._write(data)
        self._pad(tarfile.BLOCKSIZE)

    def copy(self, digest: Digest, file: BinaryIO, size: int, on_bytes: Callable[[int], object]) -> None:
        """Add a blob of `size` bytes that `file` has.  Raises `DataError` if it has something else."""
        sha = hashlib.sha256()
        self._header(blob_name(digest), size)
        left = size
        while left and (data := file.read(min(_CHUNK, left))):
            sha.update(data)
            self._write(data)
            left -= len(data)
            on_bytes(len(data))
        got = f"sha256:{sha.hexdigest()}"
        if got != digest:
            raise mismatch(f"blob {short(digest)}", digest, got)
        self._pad(tarfile.BLOCKSIZE)

    def finish(self) -> None:
        """Mark the end, and hand everything on."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._pad(tarfile.RECORDSIZE)
        self._output.flush()

    def _header(self, name: str, size: int) -> None:
        info = tarfile.TarInfo(name)
        info.size = size
        self._write(info.tobuf(tarfile.PAX_FORMAT))

    def _write(self, data: bytes) -> None:
        self._output.write(data)
        self._size += len(data)

    def _pad(self, unit: int) -> None:
        self._write(bytes(-self._size % unit))
