"""Putting a repository's new settings in place of the old, for a guest.

git writes `config.lock` and renames it to `config`.  The guest may hold the file open, and go on writing to it.  So what is put in place
is a copy: a file that the guest never could write.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from shed.backends.gitconfig import MAX_BYTES, allowed

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def replace(folder: str, name: bytes, user: tuple[int, int]) -> int:
    """Replace `name` in `folder` by ``name.lock``, and remove that; the file is `user`'s.  Return 0, or why not.  Raises `OSError`."""
    lock, copy = name + b".lock", b"%s.%s" % (name, os.urandom(8).hex().encode())
    where = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        new, mode = _read(where, lock)
        old = b""
        with contextlib.suppress(FileNotFoundError):
            old, _ = _read(where, name)
        if not allowed(new, old):
            return errno.EPERM
        try:
            file = os.open(copy, _NEW, 0o600, dir_fd=where)
            try:
                _write(file, new)
                if os.geteuid() == 0:
                    os.fchown(file, *user)
                os.fchmod(file, mode & 0o777)
            finally:
                os.close(file)
            os.rename(copy, name, src_dir_fd=where, dst_dir_fd=where)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(copy, dir_fd=where)
            raise
        with contextlib.suppress(FileNotFoundError):
            os.unlink(lock, dir_fd=where)
    finally:
        os.close(where)
    return 0


def _read(folder: int, name: bytes) -> tuple[bytes, int]:
    """Return a plain file's bytes, one more than is allowed at most, and its mode."""
    file = os.open(name, _READ, dir_fd=folder)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise PermissionError(errno.EPERM, "no plain file")
        text = b""
        while len(text) <= MAX_BYTES and (more := os.read(file, MAX_BYTES + 1 - len(text))):
            text += more
        return text, status.st_mode
    finally:
        os.close(file)


def _write(file: int, text: bytes) -> None:
    while text:
        text = text[os.write(file, text) :]
