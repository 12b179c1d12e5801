"""A folder for the files of one build, which goes with it, and the next build removes it when a crash left it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from shed.fsutil import locked, storage_errors

_PREFIX = ".build-"


@contextlib.contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder in `parent`, which is made when it is missing; first those go whose builds are gone.

    A folder belongs to whoever holds the flock on it.  It is made, and left ones are removed, under one lock, so nobody sees one that is
    not locked yet.  Raises `StorageError` when the disk refuses.
    """
    with storage_errors(parent):
        parent.mkdir(parents=True, exist_ok=True)
    with locked(parent / f"{_PREFIX}lock"), storage_errors(parent):
        for left in parent.glob(f"{_PREFIX}*.tmp"):
            _remove_if_left(left)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, suffix=".tmp", dir=parent))
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(fd)


def _remove_if_left(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(fd)
