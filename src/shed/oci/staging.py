"""Blobs on their way into the store: files that nothing refers to until they are complete and verified.

And folders to make them in.

What is made here goes with its maker; what is downloaded is kept, see `shed.oci.partial`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from shed.fsutil import fsync_dir, locked, storage_errors
from shed.oci.content import FileSlice
from shed.oci.digest import Digest, digest_fd, hex_of

Spend = Callable[[int], object]
"""Hears how many bytes are about to be written, and raises what forbids it; see `shed.budget`."""
_PREFIX, _SUFFIX = ".staging-", ".tmp"


class StagedBlob:
    """A blob being written; `commit` gives it its name in the store.

    Write through `write`, which hashes on the way and asks `spend` before, or through `file` at any position.
    """

    def __init__(self, folder: Path, path: Path, fd: int, spend: Spend) -> None:
        self.path = path
        self.file = os.fdopen(fd, "w+b")
        self.size = 0
        """Bytes written through `write`."""
        self._folder = folder
        self._spend = spend
        self._sha = hashlib.sha256()
        self._synced = False

    def _count(self, data: bytes | memoryview) -> None:
        self._sha.update(data)
        self.size += len(data)

    def _reset(self) -> None:
        self._sha = hashlib.sha256()
        self.size = 0

    @classmethod
    @contextlib.contextmanager
    def create(cls, folder: Path, spend: Spend) -> Iterator[StagedBlob]:
        """Yield a new staged blob in `folder`; it is removed with the block unless it was committed."""
        with storage_errors(folder):
            fd, path = _new_file(folder)
        blob = cls(folder, path, fd, spend)
        try:
            yield blob
        finally:
            with contextlib.suppress(OSError):  # a full disk refuses the last buffer; the file goes anyway
                blob.file.close()
            blob.path.unlink(missing_ok=True)

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`.  Raises `StorageError` when the disk refuses, and what `spend` raises."""
        self._spend(len(data))
        self._count(data)
        with storage_errors(self.path):
            self.file.write(data)

    def content(self) -> FileSlice:
        """Return what was written so far; it is readable as long as the blob is staged."""
        with storage_errors(self.path):
            self.file.flush()
        return FileSlice(self.file.fileno(), 0, self.size)

    def digest(self) -> Digest:
        """Return the digest of what went through `write`."""
        return Digest("sha256:" + self._sha.hexdigest())

    def sync(self) -> None:
        """Make the content durable; the blob must not be written to afterwards."""
        if not self._synced:
            with storage_errors(self.path):
                self.file.flush()
                os.fchmod(self.file.fileno(), 0o444)
                os.fsync(self.file.fileno())
            self._synced = True

    def commit(self, digest: Digest | None = None) -> Digest:
        """Install the blob under its digest and return that.

        `digest` must be the digest of the content; without it the one of `write` is used, or, when the content went
        through `file`, the content is read.  A blob that is there already stays, unless it is damaged.
        """
        with storage_errors(self.path):
            self.file.flush()
        if digest is None:
            digest = self.digest() if self.size else digest_fd(self.file.fileno())
        target = self._folder / hex_of(digest)
        with locked(self._folder / f".{hex_of(digest)}.lock"):
            if _intact(target, digest, os.fstat(self.file.fileno()).st_size):
                self.path.unlink()
            else:
                self.sync()
                with storage_errors(target):
                    self.path.rename(target)
                    fsync_dir(self._folder)
        return digest


def _intact(path: Path, digest: Digest, size: int) -> bool:
    """Tell whether `path` is the blob it is named after.

    A damaged one must not survive the retry that would mend it.
    """
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size == size and digest_fd(file.fileno()) == digest
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder in `folder` for what a program needs to make a blob; it is removed with the block."""
    with storage_errors(folder):
        fd, path = _new_folder(folder)
    try:
        yield path
    finally:
        os.close(fd)
        shutil.rmtree(path, ignore_errors=True)


def _new_file(folder: Path) -> tuple[int, Path]:
    """Return a new file in `folder`, open and locked."""
    while True:
        fd, name = tempfile.mkstemp(prefix=_PREFIX, suffix=_SUFFIX, dir=folder)
        if _lock(fd):
            return fd, Path(name)


def _new_folder(folder: Path) -> tuple[int, Path]:
    """Return a new folder in `folder`, open and locked."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, suffix=_SUFFIX, dir=folder))
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            if _lock(fd):
                return fd, path


def _lock(fd: int) -> bool:
    """Lock what was just made; when a sweep came in between and took it, close it and return False."""
    fcntl.flock(fd, fcntl.LOCK_EX)
    if os.fstat(fd).st_nlink:
        return True
    os.close(fd)
    return False


def sweep(folder: Path) -> int:
    """Remove staged blobs and folders whose writers are gone, however short ago; return how many."""
    removed = 0
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            _sweep(path)
            removed += 1
    return removed


def _sweep(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path) if stat.S_ISDIR(os.fstat(fd).st_mode) else path.unlink()
    finally:
        os.close(fd)
