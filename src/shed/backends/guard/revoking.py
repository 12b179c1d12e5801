"""Taking from a process what it has open in a mount that it is to have no more.

The kernel lets the one who answers a call put a descriptor of its own in the place of any that the caller has
(SECCOMP_ADDFD_FLAG_SETFD).  So the caller makes a call, by its monitor, and all its descriptors in that mount become
one by which nothing can be read, written, listed or reached.

Source: seccomp_unotify(2).
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from shed.backends.guard import asking

PLACE = b"/revoke/"
"""What the caller tries to make a file in; behind it is the number of the mount."""


class Revoking:
    """Takes descriptors from the process `pid`."""

    def __init__(self, listener: int, pid: int) -> None:
        self._listener = listener
        self._pid = pid
        self._dead = -1

    def revoke(self, identity: int, mount: int) -> None:
        """While the call `identity` waits, close all that is open in `mount`.  Raises `OSError`."""
        if self._dead < 0:
            self._dead = _dead()
        folder = f"/proc/{self._pid}/fd"
        for name in os.listdir(folder):  # noqa: PTH208  few imports
            try:
                words = Path(f"/proc/{self._pid}/fdinfo/{name}").read_bytes().split()
            except FileNotFoundError:
                continue  # it is closed by now
            if int(words[words.index(b"mnt_id:") + 1]) == mount:
                asking.replace(self._listener, identity, self._dead, int(name))


def _dead() -> int:
    """Return a descriptor that is of no use: to write an empty file in memory that nobody may change."""
    file = os.memfd_create("revoked", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fcntl.fcntl(
        file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    )
    try:
        return os.open(f"/proc/self/fd/{file}", os.O_WRONLY | os.O_CLOEXEC)
    finally:
        os.close(file)
