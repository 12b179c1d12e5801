"""Keeping the folders of a shared folder known to the guest's kernel; the host says which.

Linux's 9P client forgets a name as soon as nobody uses it, and asks the host for every part of a path each time.  A
descriptor that stands for a name alone (O_PATH) keeps it known.  That is done for folders, and not for files: of a file
the kernel would keep, besides its name, what was mapped into memory.  What is asked of a folder (its times, what is in
it) is asked every time as before, so none of that is ever old.

Run as a program of its own, with the folder as its argument.  Standard input has records, each with a NUL behind it:
``+PATH`` holds a folder whose parent is held, ``-PATH`` lets go of it and of all below, ``-`` of all.  Its end lets go
of all, too.
"""

from __future__ import annotations

import os

_FOLDER = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_READ = 64 * 1024


class _Folder:
    """A folder that is held, and those below it."""

    __slots__ = ("below", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.below: dict[bytes, _Folder] = {}

    def let_go(self) -> None:
        """Give up all below, and then this."""
        for name in self.below.values():
            name.let_go()
        os.close(self.fd)


class Names:
    """The folders that are held of the folder `root`."""

    def __init__(self, root: str) -> None:
        """Raises `OSError`."""
        self._root = _Folder(os.open(root, _FOLDER))

    def take(self, record: bytes) -> None:
        """Do what one record says; what cannot be held is not."""
        folder, path = self._root, record[1:].split(b"/")
        for part in path[:-1]:
            if (below := folder.below.get(part)) is None:
                return
            folder = below
        if record == b"-":
            before, self._root.below = self._root.below, {}
            for name in before.values():
                name.let_go()
            return
        old = folder.below.pop(path[-1], None)
        if old is not None:
            old.let_go()
        if record[:1] == b"+":
            try:
                folder.below[path[-1]] = _Folder(os.open(path[-1], _FOLDER, dir_fd=folder.fd))
            except OSError:
                pass  # it has gone again, or there are too many

    def close(self) -> None:
        """Let go of all."""
        self._root.let_go()


def main(words: list[str]) -> int:
    """Hold folders of the folder that is the only word until the input ends."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    names = Names(words[0])
    rest = b""
    while data := os.read(0, _READ):
        *records, rest = (rest + data).split(b"\0")
        for record in records:
            names.take(record)
    return 0
