"""A folder for the files of one build, which goes with it, and the next build removes it when a crash left it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from shed.fsutil import storage_errors

_PREFIX, _SUFFIX = ".build-", ".tmp"


@contextlib.contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder in `parent`, which is made when it is missing; first those go whose builds are gone.

    A folder belongs to whoever holds the flock on it.  Raises `StorageError` when the disk refuses.
    """
    with storage_errors(parent):
        parent.mkdir(parents=True, exist_ok=True)
        for left in parent.glob(f"{_PREFIX}*{_SUFFIX}"):
            _remove_if_left(left)
        while (owned := _make(parent)) is None:
            pass
    folder, fd = owned
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(fd)


def _make(parent: Path) -> tuple[Path, int] | None:
    """Return a new folder and the descriptor that holds its lock; None when somebody took it for one that was left."""
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, suffix=_SUFFIX, dir=parent))
    with contextlib.suppress(FileNotFoundError):
        fd = _open(folder)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if folder.exists():
                return folder, fd
        os.close(fd)
    return None


def _remove_if_left(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        fd = _open(folder)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        os.close(fd)


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
