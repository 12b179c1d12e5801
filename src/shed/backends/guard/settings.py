"""Replacing a repository's settings or index for a guest, and the link of a work tree to its repository.

git writes `config.lock` and renames it to `config`, and does the same for `index`.  The guest may hold the file open,
and go on writing to it.  So what is put in place is a copy: a file that the guest never could write.

The host's git does the same, by the name.  So the guest opens and removes no lock but its own, and makes one only where
none is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from shed.backends import gitconfig, gitindex
from shed.backends.guard.rules import COPY

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MOST_LOCKS = 64
_GUESTS = b"/workspace/"
"""Where remotes of a guest's may be, unless the host has such a folder itself."""
MADE = b"# made in a shed\n"
"""Begins the settings of a repository that the guest has made, the only ones that it may remove, and so make anew."""
_COMMON = b"../..\n"
"""What git writes there itself."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Locks:
    """The locks that the guest has made.  Each is kept open, so that no other file gets its number."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, int], int] = {}

    def make(self, folder: str, name: bytes, flags: int, mode: int, user: tuple[int, int]) -> int:
        """Make the lock `name`, to be read and written as `flags` say, `user`'s; return a descriptor.

        Raises `OSError`.
        """
        if len(self._open) >= _MOST_LOCKS:
            for status in [status for status in map(os.fstat, self._open.values()) if not status.st_nlink]:
                self._forget(status)  # somebody else has removed it
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
            _check(_identity(status) in self._open)
            os.unlink(name, dir_fd=where)
            self._forget(status)

    def replace(self, folder: str, lock: bytes, name: bytes, user: tuple[int, int]) -> None:
        """Replace `name` in `folder` by a lock of the guest's, and remove that; the file is `user`'s.

        Raises `OSError`, also when it may not be.
        """
        with _folder(folder) as where:
            is_index = lock == b"index.lock"
            new, status = _read(where, lock, gitindex.MAX_BYTES if is_index else gitconfig.MAX_BYTES)
            _check(_identity(status) in self._open)
            if is_index:
                _check(gitindex.allowed(new, _hash_bytes(where)))
            elif name == b"MERGE_RR":
                _check(not new)  # git keeps a copy of each file named there, wherever it is
            else:
                new = _settled(new, _settings(where, name))
            _put(where, name, new, status, user)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(lock, dir_fd=where)
            self._forget(status)

    def _forget(self, status: os.stat_result) -> None:
        os.close(self._open.pop(_identity(status)))


def make_common(folder: str, user: tuple[int, int]) -> int:
    """Make ``commondir`` of a work tree; return a descriptor that takes what the guest writes to it, for nobody.

    Raises `OSError`.
    """
    with _folder(folder) as where:
        _put(where, b"commondir", _COMMON, None, user)
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


def remove(folder: str, name: bytes) -> None:
    """Remove the settings of a repository.  Raises `OSError`, also when it is not the guest's."""
    with _folder(folder) as where:
        _check((_settings(where, name) or b"").startswith(MADE))
        os.unlink(name, dir_fd=where)


def _check(allowed: bool) -> None:
    if not allowed:
        raise PermissionError(errno.EPERM, "not allowed")


def _settled(new: bytes, old: bytes | None) -> bytes:
    """Return what is put in place of settings, which begins with `MADE` when there were none, or did before.

    Raises `OSError`.
    """
    there = old or b""
    _check(gitconfig.allowed(new, there))
    _check(new.count(_GUESTS) <= there.count(_GUESTS) or not os.path.lexists(_GUESTS))
    while new.startswith(MADE):
        new = new.removeprefix(MADE)
    return MADE + new if old is None or old.startswith(MADE) else new


def _hash_bytes(folder: int) -> int:
    """Return the length of objects' names in the repository, or the work tree's part of one, at `folder`.

    A guest cannot change it.
    """
    texts = [_settings(folder, name) or b"" for name in (b"config", b"../../config")]
    return 32 if any(b"sha256" in text.lower() for text in texts) else 20


def _settings(folder: int, name: bytes) -> bytes | None:
    with contextlib.suppress(FileNotFoundError):
        return _read(folder, name, gitconfig.MAX_BYTES)[0]
    return None


def _put(folder: int, name: bytes, text: bytes, like: os.stat_result | None, user: tuple[int, int]) -> None:
    """Put a file of `user`'s in place.

    Mode and times are those of `like`: git compares an index's with those of files.
    """
    copy = COPY + os.urandom(8).hex().encode()
    try:
        file = os.open(copy, _NEW, 0o600, dir_fd=folder)
        try:
            with memoryview(text) as left:
                done = 0
                while done < len(left):
                    done += os.write(file, left[done:])
            if os.geteuid() == 0:
                os.fchown(file, *user)
            os.fchmod(file, 0o644 if like is None else like.st_mode & 0o777)
            if like is not None:
                os.utime(file, ns=(like.st_atime_ns, like.st_mtime_ns))
        finally:
            os.close(file)
        os.rename(copy, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(copy, dir_fd=folder)
        raise


def _read(folder: int, name: bytes, limit: int) -> tuple[bytes, os.stat_result]:
    """Return a plain file's bytes, and its status.  Raises `OSError`, also when it has more than `limit` bytes."""
    file = os.open(name, _READ, dir_fd=folder)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise PermissionError(errno.EPERM, "no plain file")
        text = bytearray()
        while more := os.read(file, min(1 << 20, limit + 1 - len(text))):
            text += more
            if len(text) > limit:
                raise OSError(errno.EFBIG, "too large")
        return bytes(text), status
    finally:
        os.close(file)
