"""Putting a repository's new settings in place of the old, and a work tree's way to its repository, for a guest.

git writes `config.lock` and renames it to `config`.  The guest may hold the file open, and go on writing to it.  So what is put in place
is a copy: a file that the guest never could write.

The host's git does the same, by the name.  So the guest opens and removes no lock but its own, and makes one only where none is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from shed.backends.gitconfig import MAX_BYTES, allowed

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MOST_LOCKS = 64
_COMMON = b"../..\n"
"""What git writes there itself."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Locks:
    """The locks that the guest has made.  Each is kept open, so that no other file gets its number."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, int], int] = {}

    def make(self, folder: str, name: bytes, flags: int, mode: int, user: tuple[int, int]) -> int:
        """Make the lock `name`, to be read and written as `flags` say, `user`'s; return a descriptor.  Raises `OSError`."""
        if len(self._open) >= _MOST_LOCKS:
            raise OSError(errno.EMFILE, "locks")
        with _folder(folder) as where:
            file = os.open(name, (flags & os.O_ACCMODE) | _NEW & ~os.O_ACCMODE, 0o600, dir_fd=where)
        if os.geteuid() == 0:
            os.fchown(file, *user)
        os.fchmod(file, mode)
        self._open[_identity(os.fstat(file))] = os.dup(file)
        return file

    def remove(self, folder: str, name: bytes) -> None:
        """Remove a lock.  Raises `OSError`, also when it is not the guest's."""
        with _folder(folder) as where:
            status = os.stat(name, dir_fd=where, follow_symlinks=False)
            if _identity(status) not in self._open:
                raise PermissionError(errno.EPERM, "not the guest's")
            os.unlink(name, dir_fd=where)
            self._forget(status)

    def replace(self, folder: str, name: bytes, user: tuple[int, int]) -> None:
        """Replace `name` in `folder` by its lock, the guest's, and remove that; the file is `user`'s.

        Raises `OSError`, also when it may not be.
        """
        with _folder(folder) as where:
            new, status = _read(where, name + b".lock")
            old = b""
            with contextlib.suppress(FileNotFoundError):
                old, _ = _read(where, name)
            if _identity(status) not in self._open or not allowed(new, old):
                raise PermissionError(errno.EPERM, "settings")
            _put(where, name, new, status.st_mode & 0o777, user)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name + b".lock", dir_fd=where)
            self._forget(status)

    def _forget(self, status: os.stat_result) -> None:
        os.close(self._open.pop(_identity(status)))


def make_common(folder: str, user: tuple[int, int]) -> int:
    """Make ``commondir`` of a work tree; return a descriptor that takes what the guest writes to it, for nobody.  Raises `OSError`."""
    with _folder(folder) as where:
        _put(where, b"commondir", _COMMON, 0o644, user)
    return os.memfd_create("commondir")


@contextlib.contextmanager
def _folder(way: str) -> Iterator[int]:
    where = os.open(way, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield where
    finally:
        os.close(where)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _put(folder: int, name: bytes, text: bytes, mode: int, user: tuple[int, int]) -> None:
    copy = b"%s.%s" % (name, os.urandom(8).hex().encode())
    try:
        file = os.open(copy, _NEW, 0o600, dir_fd=folder)
        try:
            while text:
                text = text[os.write(file, text) :]
            if os.geteuid() == 0:
                os.fchown(file, *user)
            os.fchmod(file, mode)
        finally:
            os.close(file)
        os.rename(copy, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(copy, dir_fd=folder)
        raise


def _read(folder: int, name: bytes) -> tuple[bytes, os.stat_result]:
    """Return a plain file's bytes, one more than is allowed at most, and its status."""
    file = os.open(name, _READ, dir_fd=folder)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise PermissionError(errno.EPERM, "no plain file")
        text = b""
        while len(text) <= MAX_BYTES and (more := os.read(file, MAX_BYTES + 1 - len(text))):
            text += more
        return text, status
    finally:
        os.close(file)
