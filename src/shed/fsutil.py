"""Files and directories: writing that a crash cannot break, private directories, locks between processes, copies.

A crash during `atomic_write` or `atomic_file` leaves either the old file or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from shed.errors import REFUSALS, ConflictError, StorageError
from shed.progress import on_wait
from shed.text import visible

FICLONE = 0x40049409
"""ioctl FICLONE, linux/fs.h."""
_COPY_CHUNK = 1 << 20
MOST_FILES = 1 << 20
"""Most file descriptors that are asked for: some machines allow a billion, and there are programs that go through
all of them.
"""
LOCK_LIMIT = 120.0
"""Seconds to wait for a lock: work under a lock takes much less."""
_TOLD_AFTER = 1.0
"""Seconds of waiting after which the holder of the lock is named."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05
"""Seconds between two tries to lock."""


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn errors of the disk (full, read-only, no permission, I/O, …) into a `StorageError` that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        raise StorageError(f"cannot write {path}: {os.strerror(error.errno)}", hint=REFUSALS[error.errno]) from error


def fsync_dir(path: Path) -> None:
    """Make the entries of the directory `path` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def atomic_file(path: Path, *, mode: int = 0o600) -> Iterator[BinaryIO]:
    """Yield a file that becomes `path` when the block ends without an exception, and is removed otherwise.

    The temporary file is in the same directory and is named ``.NAME.*.tmp``.  It gets `mode`, is synced and renamed;
    then the directory is synced.  Raises `StorageError`.
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


def atomic_write(path: Path, data: bytes | str, *, mode: int = 0o600) -> None:
    """Replace the content of `path` with `data` (text as UTF-8) in one step."""
    with atomic_file(path, mode=mode) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def public_mode() -> int:
    """Return the mode that a new file gets by this process's umask."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 0o666 & ~next(int(line.split()[1], 8) for line in lines if line.startswith("Umask:"))


def private_folder(path: Path) -> None:
    """Create the directory `path`, and its missing parents.  It gets mode 0700 whatever the umask, also if it exists.

    It may be a symlink that this user or root made.  Raises `StorageError`, with the code NOT_OURS when the directory,
    or a symlink in its place, belongs to another user.
    """
    me = os.geteuid()
    try:
        if not path.is_dir():
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            path.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            link, found = path.lstat(), os.fstat(fd)
            strangers = {link.st_uid, found.st_uid} - {me, 0}
            if not strangers and found.st_mode & 0o077 and found.st_uid == me:
                os.fchmod(fd, 0o700)
        finally:
            os.close(fd)
    except OSError as error:
        hint = "set SHED_DATA_DIR and SHED_RUNTIME_DIR to folders of yours"
        raise StorageError(f"cannot make the folder {path}: {error.strerror}", hint=hint) from error
    if strangers or (found.st_uid != me and found.st_mode & 0o002):
        what = "is a link of" if stat.S_ISLNK(link.st_mode) and strangers == {link.st_uid} else "belongs to"
        owner = min(strangers, default=found.st_uid)
        raise StorageError(
            f"{path} {what} user {owner}, who could change what is in it; this is user {me}",
            code="NOT_OURS",
            hint=f"work as that user, or have it owned by user {me} alone (chown, chmod 0700), or set SHED_DATA_DIR "
            "to another",
        )


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True, limit: float = LOCK_LIMIT) -> Iterator[None]:
    """Hold a flock on the file `path`, which is created with mode 0600 and never removed.

    After a second of waiting, `shed.progress.on_wait` is told who holds it.  Raises `ConflictError` (LOCKED) after
    `limit` seconds; without `wait`, at once.
    """
    with storage_errors(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        status = os.fstat(fd)
        if status.st_mode & 0o077 and status.st_uid == os.geteuid():
            os.fchmod(fd, 0o600)  # who can open it can lock it
        _lock(fd, path, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB, limit if wait else 0.0)
        yield
    finally:
        os.close(fd)


def _lock(fd: int, path: Path, operation: int, limit: float) -> None:
    waiting, pause = Waiting(), _FIRST_PAUSE
    while True:
        try:
            fcntl.flock(fd, operation)
            return
        except BlockingIOError:
            pass
        if waiting.seconds >= limit:
            after = f", for {limit:g} s now" if limit else ""
            raise ConflictError(
                f"{path} is in use by {holder(fd)}{after}", code="LOCKED", hint="try again when it is done"
            )
        waiting.on(lambda: f"{path} is in use by {holder(fd)}")
        time.sleep(min(pause, limit))
        pause = min(2 * pause, _LONGEST_PAUSE)


class Waiting:
    """Tells `on_wait` what somebody waits for: once, after a second."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._told = False

    @property
    def seconds(self) -> float:
        """Seconds since the waiting began."""
        return time.monotonic() - self._began

    def on(self, what: Callable[[], str]) -> None:
        """Say what is waited for, if it is time to; call this in each turn of the waiting loop."""
        if self.seconds >= _TOLD_AFTER and not self._told:
            self._told = True
            on_wait.get()(f"waiting: {what()}")


def holder(fd: int) -> str:
    """Return which process holds a flock on the open file `fd`: its number, its name and its user.

    The kernel does not always tell; then it is just "another process".
    """
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = os.fstat(fd)
        device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
        for line in Path("/proc/locks").read_text().splitlines():
            # proc_locks(5): 1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE START END; "->" marks one that waits
            words = line.split()
            if words[1] == "FLOCK" and int(words[5].rpartition(":")[2]) == status.st_ino:
                # On btrfs and overlayfs stat gives another device, so a match of the device is only preferred.
                found.append((words[5].startswith(device), int(words[4])))
    return _process(max(found)[1]) if found else "another process"


def _process(pid: int) -> str:
    folder = Path("/proc") / str(pid)
    try:
        name = (folder / "comm").read_text(errors="replace").strip()
        return f"process {pid} ({visible(name)}, user {folder.stat().st_uid})"
    except OSError:
        return f"process {pid}"


def can_link(source: Path, target: Path) -> bool:
    """Return whether files of the directory `source` can be hardlinked into the directory `target`.

    They can when both are in one file system, and in one mount of it.
    """
    return _mount(source) == _mount(target)


def _mount(folder: Path) -> tuple[int, str]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        known = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
        return os.fstat(fd).st_dev, next(line for line in known if line.startswith("mnt_id:"))
    finally:
        os.close(fd)


def clone_file(source: Path, target: BinaryIO, copied: Callable[[int], None] = lambda _: None) -> None:
    """Copy `source` into `target`: as a reflink where the file system has them, else byte by byte, keeping holes.

    `copied` is told of each piece how many bytes it has; what it raises ends the copy.
    """
    with source.open("rb") as origin:
        try:
            fcntl.ioctl(target.fileno(), FICLONE, origin.fileno())
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.ENOTTY, errno.ENOSYS):
                raise
        _copy_data_extents(origin.fileno(), target.fileno(), copied)


def data_extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of each part of the open file `fd`, of `size` bytes, that is no hole.  Raises `OSError`."""
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        position = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, position


def _copy_data_extents(source: int, target: int, copied: Callable[[int], None] = lambda _: None) -> None:
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    for start, end in data_extents(source, size):
        at = start
        while at < end:
            data = os.pread(source, min(_COPY_CHUNK, end - at), at)
            if not data:  # the source was truncated while it was read
                raise OSError(errno.EIO, "source shrank while it was copied")
            copied(len(data))
            view = memoryview(data)
            while view:
                written = os.pwrite(target, view, at)
                view, at = view[written:], at + written


def raise_file_limit() -> None:
    """Raise the limit of open files to what the administrator allows, but at most `MOST_FILES`.

    Programs that this process starts inherit it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
