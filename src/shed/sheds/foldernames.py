"""What folders there are in a folder of the host, told as they come and go: records for `shed.guest.names`.

One that went is told at once; one that came, once it has been there for a moment.  Links are not followed, whatever the
guest does to the folder meanwhile: every path is walked by descriptors, also that of the folder itself.  The guest can
make and remove folders as fast as it likes; beyond a budget, it is told to forget all, and nothing for a while.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from shed.backends.link_budget import Allowance
from shed.linux import plain
from shed.linux.inotify import Inotify, tells_all

MOST_FOLDERS = 8_192
"""Folders that are told, those near the top first.  Each costs a watch here and about 2 KiB in the guest."""
_SETTLED = 1.0
"""Seconds after which a new folder is told: most temporary ones are gone by then."""
_CHANGES, _CHANGES_BURST = 2_000, 40_000
"""Changes a second, and in one go, that are looked at."""
_FIRST_REST, _LONGEST_REST = 2.0, 120.0
"""Seconds in which nothing is told after too many changes; twice as many each further time."""
_PAUSE = 0.005
"""Seconds between two looks: changes come in flocks."""
_WALK = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_NOT_INSIDE = (b".git/objects",)
"""Folders whose content is not told: it is many, and hardly ever looked for by name."""


class TooManyChangesError(Exception):
    """More folders came and went than are looked at."""


class _Folder:
    """A folder that is watched, and the names of those in it that were told."""

    __slots__ = ("names", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.names: set[bytes] = set()


class FolderNames:
    """Tells the folders in the one at `path` to `tell`, in a thread of its own that calls `run`."""

    def __init__(self, path: str, tell: Callable[[bytes], None], *, most: int = MOST_FOLDERS) -> None:
        """Raises `OSError`."""
        self._path = path
        self._tell = tell
        self._most = most
        self._stop_read, self._stop_write = os.pipe2(os.O_CLOEXEC)
        self._ending = threading.Lock()
        self._allowance = Allowance(_CHANGES, _CHANGES_BURST, time.monotonic)

    def stop(self) -> None:
        """Have `run` return soon; from another thread, and also when it has returned."""
        with self._ending:
            if self._stop_write >= 0:
                os.write(self._stop_write, b"x")

    def run(self) -> None:
        """Tell what there is and what changes, until `stop`.  Raises `OSError`, and what `tell` raises."""
        rest = _FIRST_REST
        try:
            while True:
                began = time.monotonic()
                try:
                    self._follow()
                except TooManyChangesError:
                    self._tell(b"-\0")
                else:
                    return
                rest = min(rest * 2, _LONGEST_REST) if time.monotonic() - began < _LONGEST_REST else _FIRST_REST
                if self._stopped(rest):
                    return
        finally:
            with self._ending:
                os.close(self._stop_read)
                os.close(self._stop_write)
                self._stop_write = -1

    def _stopped(self, seconds: float) -> bool:
        return bool(select.select([self._stop_read], [], [], seconds)[0])

    def _follow(self) -> None:
        root = plain.open_folder(self._path)
        try:
            if not tells_all(root):
                raise OSError(errno.EOPNOTSUPP, "its file system does not tell all changes", self._path)
            with contextlib.closing(Inotify()) as inotify:
                tree = _Tree(root, inotify, self._tell, self._most)
                tree.look()
                poll = select.poll()
                poll.register(inotify.fd, select.POLLIN)
                poll.register(self._stop_read, select.POLLIN)
                while True:
                    seconds = tree.due()
                    ready = [fd for fd, _ in poll.poll(None if seconds is None else seconds * 1000)]
                    if self._stop_read in ready or (ready and self._stopped(_PAUSE)):
                        return
                    for change in inotify.read():
                        if change.folder < 0 or not self._allowance.take(1):
                            raise TooManyChangesError
                        tree.changed(change.folder, change.name, came=change.came)
                    tree.look()
        finally:
            os.close(root)


class _Tree:
    """The folders that are watched, and what was told of them."""

    def __init__(self, root: int, inotify: Inotify, tell: Callable[[bytes], None], most: int) -> None:
        self._root = root
        self._device = os.fstat(root).st_dev
        self._inotify = inotify
        self._tell = tell
        self._left = most
        self._folders: dict[bytes, _Folder] = {}
        self._paths: dict[int, bytes] = {}
        self._ahead = deque([b""])
        """Folders that are to be looked into."""
        self._new: dict[bytes, float] = {}
        """Folders that came, and when they are to be told, in that order."""
        self._said: list[bytes] = []

    def due(self) -> float | None:
        """Return the seconds until there is a new folder to tell; None when there is none."""
        return max(0.0, next(iter(self._new.values())) - time.monotonic()) if self._new else None

    def changed(self, number: int, name: bytes, *, came: bool) -> None:
        """Take a change."""
        folder = self._paths.get(number)
        if folder is None:
            return  # of a folder that has gone from here
        path = folder + b"/" + name if folder else name
        self._new.pop(path, None)
        self._went(path)
        if came and len(self._new) < self._left:
            self._new[path] = time.monotonic() + _SETTLED

    def _went(self, path: bytes) -> None:
        """Tell that a folder has gone, if it was told."""
        above, _, name = path.rpartition(b"/")
        known = self._folders.get(above)
        if known is not None and name in known.names:
            known.names.discard(name)
            self._left += 1
            self._forget(path)
            self._said.append(b"-" + path)

    def look(self) -> None:
        """Tell what went, then what is due, and look into what is new."""
        self._flush()
        now = time.monotonic()
        while self._new and (path := next(iter(self._new))) and self._new[path] <= now:
            del self._new[path]
            self._came(path)
        while self._ahead:
            self._enter(self._ahead.popleft())
            self._flush()
        self._flush()

    def _flush(self) -> None:
        said, self._said = self._said, []
        if said:
            self._tell(b"\0".join(said) + b"\0")

    def _came(self, path: bytes) -> None:
        above, _, name = path.rpartition(b"/")
        with self._below(path, _WALK) as folder:
            if folder is not None:
                self._told(above, name)

    def _told(self, above: bytes, name: bytes) -> None:
        known = self._folders.get(above)
        if known is None or name in known.names or self._left <= 0:
            return
        self._left -= 1
        known.names.add(name)
        path = above + b"/" + name if above else name
        self._said.append(b"+" + path)
        if not path.endswith(_NOT_INSIDE):
            self._ahead.append(path)

    def _enter(self, path: bytes) -> None:
        """Watch a folder, and tell what is in it."""
        with self._below(path, _LIST) as fd:
            if fd is None or self._left <= 0 or path in self._folders or os.fstat(fd).st_dev != self._device:
                return
            try:
                number = self._inotify.watch(fd)
                if number in self._paths:  # it was elsewhere a moment ago, and that it went is not told yet
                    self._went(self._paths[number])
                    number = self._inotify.watch(fd)
                names = [os.fsencode(entry.name) for entry in os.scandir(fd) if entry.is_dir(follow_symlinks=False)]
            except OSError:
                return  # nothing below is told
            self._folders[path], self._paths[number] = _Folder(number), path
            for name in names:
                self._told(path, name)

    def _forget(self, path: bytes) -> None:
        """Watch nothing at `path` and below any more."""
        folder = self._folders.pop(path, None)
        if folder is None:
            return
        self._left += len(folder.names)
        del self._paths[folder.number]
        self._inotify.forget(folder.number)
        for name in folder.names:
            self._forget(path + b"/" + name)

    @contextlib.contextmanager
    def _below(self, path: bytes, flags: int) -> Iterator[int | None]:
        """Yield a descriptor of a folder; None when it is not there, or a link is on the way."""
        fd = os.dup(self._root)
        try:
            try:
                parts = path.split(b"/") if path else [b"."]
                for number, part in enumerate(parts, 1):
                    below = os.open(part, flags if number == len(parts) else _WALK, dir_fd=fd)
                    os.close(fd)
                    fd = below
            except OSError:
                yield None
            else:
                yield fd
        finally:
            os.close(fd)
