"""Writing files so that a crash leaves either the old or the new one, and locks between processes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from shed.errors import REFUSALS, ConflictError, StorageError

_FICLONE = 0x40049409
"""ioctl FICLONE, linux/fs.h."""
_COPY_CHUNK = 1 << 20


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the disk's refusals (full, read-only, no permission, I/O error, …) into a `StorageError` that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        raise StorageError(f"cannot write {path}: {os.strerror(error.errno)}", hint=REFUSALS[error.errno]) from error


def fsync_dir(path: Path) -> None:
    """Make the entries of the folder `path` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def atomic_file(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Yield a file that becomes `path` when the block ends without an exception, and vanishes otherwise.

    The temporary file is in the same folder, named ``.NAME.*.tmp``; it is synced, given `mode`, and renamed; then the folder is synced.
    Raises `StorageError` when the disk refuses.
    """
    with storage_errors(path):
        fd, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(fd, "w+b") as file:
                yield file
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_dir(path.parent)


def atomic_write(path: Path, data: bytes | str, *, mode: int = 0o644) -> None:
    """Replace the content of `path` with `data` (text as UTF-8) in one step."""
    with atomic_file(path, mode=mode) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Hold a flock on `path`, which is created and never removed.

    Without `wait`, a lock held by somebody else raises `ConflictError` (LOCKED) at once.
    """
    with storage_errors(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
        try:
            fcntl.flock(fd, operation)
        except BlockingIOError:
            raise ConflictError(f"{path} is in use by another process", code="LOCKED", hint="try again when it is done") from None
        yield
    finally:
        os.close(fd)


def can_link(source: Path, target: Path) -> bool:
    """Tell whether what is in the folder `source` can get another name in the folder `target`: one file system, and one mount of it."""
    return _mount(source) == _mount(target)


def _mount(folder: Path) -> tuple[int, str]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        known = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
        return os.fstat(fd).st_dev, next(line for line in known if line.startswith("mnt_id:"))
    finally:
        os.close(fd)


def clone_file(source: Path, target: BinaryIO) -> None:
    """Make `target` hold what `source` holds: a reflink where the file system has them, else a copy that keeps holes."""
    with source.open("rb") as origin:
        try:
            fcntl.ioctl(target.fileno(), _FICLONE, origin.fileno())
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.ENOTTY, errno.ENOSYS):
                raise
        _copy_data_extents(origin.fileno(), target.fileno())


def _copy_data_extents(source: int, target: int) -> None:
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    position = 0
    while position < size:
        try:
            start = os.lseek(source, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        position = os.lseek(source, start, os.SEEK_HOLE)
        while start < position:
            data = os.pread(source, min(_COPY_CHUNK, position - start), start)
            if not data:  # the source was cut while we read
                raise OSError(errno.EIO, "source shrank while it was copied")
            view = memoryview(data)
            while view:
                written = os.pwrite(target, view, start)
                view, start = view[written:], start + written
