"""Restricting a process by Landlock to some files, and to no other process.

Source: landlock(7); include/uapi/linux/landlock.h.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable

from shed.linux import kernel

_READ, _EXECUTE, _READ_DIR = 1 << 2, 1 << 0, 1 << 3
_ALL_BY_VERSION = (0, (1 << 13) - 1, (1 << 14) - 1, (1 << 15) - 1, (1 << 15) - 1, (1 << 16) - 1)
"""What Landlock knows of files, by its version; later ones know the same."""
_MOVES_SINCE = 2
"""Version 1 lets nobody move a file to another folder."""
_NET, _NET_SINCE = 3, 4
_SCOPES, _SCOPES_SINCE = 3, 6
"""Abstract Unix sockets and signals."""
_FILE_RIGHTS = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15
"""Execute, write, read, truncate, and control of devices: the rights that a file can have, not only a folder."""


def restrict(readable: Iterable[str], writable: Iterable[str], *, connects: bool) -> None:
    """Leave this thread, and what it starts, the files at and below `readable`, and all rights at and below `writable`.

    With `connects`, it may go on to use TCP.  Abstract Unix sockets and other processes are out of reach, where the
    kernel's version knows of that.  Does nothing where the kernel has no Landlock, or only its version 1 and a folder
    is to be written; what is not there is left out.  Raises OSError.
    """
    version, writable = kernel.landlock_version(), list(writable)
    if version < _MOVES_SINCE and (not version or any(map(os.path.isdir, writable))):
        return
    handled = _ALL_BY_VERSION[min(version, len(_ALL_BY_VERSION) - 1)]
    words = [handled]
    if version >= _NET_SINCE:
        words.append(0 if connects else _NET)
    if version >= _SCOPES_SINCE:
        words.append(_SCOPES)
    opened = []
    for paths, rights in ((readable, _READ | _EXECUTE | _READ_DIR), (writable, handled)):
        for path in paths:
            if os.path.exists(path):  # noqa: PTH110  few imports
                kept = rights if os.path.isdir(path) else rights & _FILE_RIGHTS  # noqa: PTH112  as above
                opened.append((os.open(path, os.O_PATH | os.O_CLOEXEC), kept & handled))
    kernel.landlock(struct.pack(f"={len(words)}Q", *words), opened)
    for file, _ in opened:
        os.close(file)
