"""Folders by paths without links: whoever may write to a folder on the way can lead nobody out of it.

The launcher imports this, so it imports next to nothing.
"""

from __future__ import annotations

import errno
import os

_WAY = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC


def open_folder(path: str) -> int:
    """Return a descriptor (O_PATH) of the folder `path`, which is absolute.

    Raises `OSError`, also when a part of the path is a link or leads up.
    """
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if ".." in parts or not path.startswith("/"):
        raise OSError(errno.EINVAL, "it leads elsewhere", path)
    found = os.open("/", _WAY)
    for part in parts:
        outer = found
        try:
            found = os.open(part, _WAY, dir_fd=outer)
        except OSError as error:
            error.filename = path
            raise
        finally:
            os.close(outer)
    return found


def check_folder(path: str) -> os.stat_result:
    """Return the status of the folder `path`, which can be read.

    Raises `OSError`, whose `strerror` says what is wrong with it.
    """
    try:
        folder = open_folder(path)
    except FileNotFoundError as error:
        error.strerror = "there is no such folder"
        raise
    except NotADirectoryError as error:
        error.strerror = "a link is on the way" if os.path.realpath(path) != path else "it is not a folder"
        raise
    try:
        if not os.access(".", os.R_OK | os.X_OK, dir_fd=folder):
            raise PermissionError(errno.EACCES, "permission denied", path)
        return os.fstat(folder)
    finally:
        os.close(folder)
