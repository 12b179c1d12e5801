"""Blobs that are being downloaded: each in a file named by its digest, which stays when a download is cut off.

::

    blobs/sha256/.partial-HEX    what is here of the blob HEX; flock: held by who fetches it

Whoever wants the blob locks that file, looks whether somebody has brought the blob while it waited, and otherwise goes
on where the file ends: the hash is rebuilt by reading what is there.  So one process fetches and the others wait,
whatever references they pull, and a process that is killed leaves its bytes to the next.  What is there is not trusted:
only a blob with the right digest gets its name.

The file is renamed to the blob, or removed, by who holds the lock; who waited for it then sees that the name is no
longer that file's, and opens it anew.  A pull leases its blobs before it opens a file, so a prune may remove what no
lease names; a sweep removes what nobody holds and nobody has written to for a day.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from shed.errors import DataError, StorageError
from shed.fsutil import Waiting, holder, storage_errors
from shed.oci.digest import Digest, hex_of, is_digest
from shed.oci.staging import Spend, StagedBlob
from shed.progress import Stop

_PREFIX = ".partial-"
_CHUNK = 1 << 20
_PATIENCE = 0.1
"""Seconds between two looks at whether another download is done."""
_KEPT_FOR = 24 * 3600.0
"""Seconds for which a sweep spares a file that nobody holds."""


class PartialBlob(StagedBlob):
    """The part of a blob that is here, to be written on; `size` is how much that is."""

    @classmethod
    @contextlib.contextmanager
    def opened(cls, folder: Path, digest: Digest, stop: Stop, spend: Spend) -> Iterator[PartialBlob]:
        """Yield the part that is in `folder` of a blob, an empty one to begin with; wait while another process has it.

        It stays when the block fails, unless the data is wrong or the disk full.  Raises what `stop` raises, and
        `StorageError`.
        """
        path = partial_path(folder, digest)
        with contextlib.ExitStack() as held:
            with storage_errors(path):
                held.callback(os.close, fd := _lock(path, stop))
                os.fchmod(fd, 0o600)  # its writer may have ended just before it was to be renamed
                blob = cls(folder, path, os.open(path, os.O_RDWR | os.O_CLOEXEC), spend)
            try:
                blob._read(stop)
                yield blob
            except (DataError, StorageError):
                if _is(path, fd):
                    path.unlink()
                raise
            finally:
                blob._close(fd)

    def clear(self) -> None:
        """Begin anew, with nothing."""
        self._reset()
        with storage_errors(self.path):
            self.file.seek(0)
            self.file.truncate()

    def _read(self, stop: Stop) -> None:
        with storage_errors(self.path):
            while data := self.file.read(_CHUNK):
                stop.check()
                self._count(data)
            self.file.seek(0, os.SEEK_END)

    def _close(self, fd: int) -> None:
        """Close the file, and remove it when nothing is in it; its lock is held by `fd`."""
        with contextlib.suppress(OSError):
            self.file.close()
        if not os.fstat(fd).st_size and _is(self.path, fd):
            self.path.unlink()


def partial_path(folder: Path, digest: Digest) -> Path:
    """Return where in `folder` the part of a blob is."""
    return folder / f"{_PREFIX}{hex_of(digest)}"


def partials(folder: Path) -> dict[Digest, os.stat_result]:
    """Return what ``stat`` says of each blob that is in `folder` in part."""
    found = {}
    for path in folder.glob(f"{_PREFIX}*"):
        if is_digest(digest := f"sha256:{path.name.removeprefix(_PREFIX)}"):
            with contextlib.suppress(FileNotFoundError):
                found[Digest(digest)] = path.lstat()
    return found


def sweep_partials(folder: Path) -> int:
    """Remove what nobody goes on with; return how many files."""
    removed = 0
    for digest, status in partials(folder).items():
        if status.st_mtime < time.time() - _KEPT_FOR:
            path = partial_path(folder, digest)
            with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is(path, file.fileno()):
                    path.unlink()
                    removed += 1
    return removed


def _lock(path: Path, stop: Stop) -> int:
    """Return the file `path`, made if need be, open and locked."""
    waiting = Waiting()
    while True:
        fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(path, fd):
                return fd
        except BlockingIOError:
            waiting.on(partial(_whose, path, fd))
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        stop.sleep(_PATIENCE)


def _whose(path: Path, fd: int) -> str:
    return f"{path} is being downloaded by {holder(fd)}"


def _is(path: Path, fd: int) -> bool:
    """Tell whether `path` is the open file `fd`, and not another that has its name by now."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(fd))
    except FileNotFoundError:
        return False
