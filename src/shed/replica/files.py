"""Files on their way: read as they were when they were opened, and seen under their names when all of them is there."""

from __future__ import annotations

import errno
import fcntl
import os
import time

from shed.replica.entry import FILE, FOLDER, ChangedError, Entry, entry_at, entry_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 128 * 1024
_SETTLED_NS = 20_000_000
"""A file that was changed less than this ago may be changed again without its time telling."""
_FURTHEST = (1 << 33) * 1_000_000_000
"""Nanoseconds from 1970 of the times that are kept."""
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EACCES)


class Incoming:
    """A file that comes in pieces; nothing is seen of it until `commit`."""

    def __init__(
        self, parent: int, temporary: str, name: str, *, mode: int, mtime: int, expected: Entry | None
    ) -> None:
        """`parent`, a descriptor, is closed at the end."""
        self._parent = parent
        self._temporary = temporary
        self._name = name
        self._mode = mode
        self._mtime = mtime
        self._expected = expected
        self._fd = -1
        try:
            self._fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=parent)
        except BaseException:
            os.close(parent)
            raise
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # `drop_left` sees that it is not left
        except OSError:
            pass

    def write(self, data: bytes | memoryview) -> None:
        """Add to its content.  Raises `OSError`."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def commit(self) -> Entry:
        """Give it its name; return it.  Raises `OSError`, `ChangedError`; then nothing is left of it."""
        try:
            os.fchmod(self._fd, self._mode)
            os.utime(self._fd, ns=times(self._mtime))
            return place(self._parent, self._temporary, self._name, self._expected)
        except BaseException:
            drop(self._temporary, self._parent)
            raise
        finally:
            self._close()

    def abort(self) -> None:
        """Leave nothing of it."""
        drop(self._temporary, self._parent)
        self._close()

    def _close(self) -> None:
        os.close(self._fd)
        os.close(self._parent)


class Reading:
    """An open file that is read once, and is what it was when it was opened."""

    def __init__(self, name: str, parent: int) -> None:
        now = time.time_ns()
        try:
            self._fd = os.open(name, _READ, dir_fd=parent)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOENT, errno.ENXIO):
                raise ChangedError from None
            raise
        self.entry = entry_of(os.fstat(self._fd))
        if self.entry.kind != FILE:
            self.close()
            raise ChangedError
        self.settled = self.entry.ctime < now - _SETTLED_NS
        """Whether its mark will tell any later change."""

    def chunks(self) -> Iterator[bytes]:
        """Yield the content, then close it.  Raises `OSError`, `ChangedError` when it changed meanwhile."""
        try:
            while data := os.read(self._fd, CHUNK):
                yield data
            if not self.entry.same(entry_of(os.fstat(self._fd))):
                raise ChangedError
        finally:
            self.close()

    def close(self) -> None:
        """Close it; may be called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def times(mtime: int) -> tuple[int, int]:
    """Return what os.utime takes for `mtime`, or for the next that a disk can keep."""
    nanoseconds = min(max(mtime, -_FURTHEST), _FURTHEST)
    return nanoseconds, nanoseconds


def place(parent: int, temporary: str, name: str, expected: Entry | None) -> Entry:
    """Give `temporary` its name; where nothing is expected, nothing is replaced."""
    if expected is None:
        try:
            os.link(temporary, name, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
        except FileExistsError:
            raise ChangedError from None
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
        else:
            os.unlink(temporary, dir_fd=parent)
            return placed(name, parent)
    now = entry_at(name, parent)
    if now is not None and (now.kind == FOLDER or not now.same(expected)):
        raise ChangedError
    if now is None and expected is not None:
        raise ChangedError
    os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
    return placed(name, parent)


def placed(name: str, parent: int) -> Entry:
    """Return what has just been put into an open folder.  Raises `ChangedError` when it is not there any more."""
    entry = entry_at(name, parent)
    if entry is None:
        raise ChangedError
    return entry


def drop_left(name: str, parent: int) -> None:
    """Remove from an open folder what `Incoming` has left when it was killed; that of one which lives stays."""
    try:
        fd = os.open(name, _READ, dir_fd=parent)
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link is made at once, or never
            drop(name, parent)
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        drop(name, parent)
    except OSError:
        pass
    finally:
        os.close(fd)


def drop(name: str, parent: int) -> None:
    """Remove it from an open folder, if it is there."""
    try:
        os.unlink(name, dir_fd=parent)
    except OSError:
        pass
