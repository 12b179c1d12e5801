"""One of two folders that are kept alike: what is in it, and changes to it.

It goes from folder to folder by descriptors and never through a link, so nothing outside is read or written.  A file
gets its name when all of it is there, and what is replaced or removed must be what it was known to be.
"""

from __future__ import annotations

import errno
import os

from shed.replica.entry import FOLDER, ChangedError, Entry, checked, entry_at, libc, unread
from shed.replica.files import Incoming, Reading, drop, drop_left, place, placed, times

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TEMPORARY = ".shed-sync-"
"""How names begin that are ours; nobody else sees them as files of the folder."""
MOST_DEPTH = 100
_MARK = "user.shed-sync"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Folder:
    """The folder `path`; what `skips` tells of a path, whose folders it was asked about before, is not there."""

    def __init__(self, path: str, skips: Callable[[str], bool]) -> None:
        self.path = path
        self._skips = skips
        self._parent: tuple[str, int] | None = None
        """The folder that was entered last, and its descriptor."""
        self._count = 0
        self._names = f"{TEMPORARY}{os.getpid()}-{os.urandom(4).hex()}-"

    def skips(self, path: str) -> bool:
        """Tell whether `path`, or a folder that it is in, is left out."""
        if not path:
            return False
        return self.skips(path.rpartition("/")[0]) or self.leaves(path)

    def look(self, path: str = "", *, clean: bool = False) -> Iterator[tuple[str, Entry]]:
        """Yield what is at `path` and below it, folders before what is in them; all of it for an empty one.

        With `clean`, remove what a killed one left half done.  Raises `OSError`.
        """
        if not path:
            root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                yield from self._walk(root, "", 0, clean)
            finally:
                os.close(root)
            return
        if self.skips(path):
            return
        folder, name = os.path.split(path)
        try:
            parent = os.dup(self.enter(folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        except PermissionError:
            yield path, unread()
            return
        try:
            yield from self._tell(parent, path, name, path.count("/"), clean)
        finally:
            os.close(parent)

    def mark(self, *, make: bool) -> str:
        """Return what tells the folder from another of its path; with `make` it gets one.  Empty where none is kept."""
        try:
            return os.getxattr(self.path, _MARK).decode("ascii", "replace")[:64]
        except OSError as error:
            if error.errno != errno.ENODATA or not make:
                return ""
        try:
            os.setxattr(self.path, _MARK, os.urandom(16).hex().encode(), os.XATTR_CREATE)
        except FileExistsError:
            pass
        except OSError:
            return ""
        return self.mark(make=False)

    def leaves(self, path: str) -> bool:
        """Tell whether `path` is left out, which the folders that it is in are not."""
        return path.rpartition("/")[2].startswith(TEMPORARY) or self._skips(path)

    def _walk(self, folder: int, prefix: str, depth: int, clean: bool) -> Iterator[tuple[str, Entry]]:
        if depth > MOST_DEPTH:
            raise OSError(errno.ELOOP, f"more than {MOST_DEPTH} folders in each other", prefix)
        for name in sorted(os.listdir(folder)):
            path = prefix + name
            if clean and _is_ours(name):
                drop_left(name, folder)
            elif not self.leaves(path):
                yield from self._tell(folder, path, name, depth, clean)

    def _tell(self, parent: int, path: str, name: str, depth: int, clean: bool) -> Iterator[tuple[str, Entry]]:
        below = -1
        try:
            entry = entry_at(name, parent)
            if entry is not None and entry.kind == FOLDER:
                below = os.open(name, _FOLDER, dir_fd=parent)
        except (FileNotFoundError, NotADirectoryError):  # it has just gone
            return
        except OSError:  # that it has nothing would be another thing to say
            entry = unread()
        if entry is None:
            return
        try:
            yield path, entry
            if below >= 0:
                yield from self._walk(below, f"{path}/", depth + 1, clean)
        finally:
            if below >= 0:
                os.close(below)

    def enter(self, path: str) -> int:
        """Return a descriptor of the folder at `path`, good until the next call of anything.  Raises `OSError`."""
        if self._parent is not None and self._parent[0] == path:
            return self._parent[1]
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in path.split("/") if path else ():
                below = os.open(part, _FOLDER, dir_fd=fd)
                os.close(fd)
                fd = below
        except OSError:
            os.close(fd)
            raise
        self.leave()
        self._parent = (path, fd)
        return fd

    def leave(self) -> None:
        """Close what was entered last: it may be moved away meanwhile."""
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None

    def entry(self, path: str) -> Entry | None:
        """Return what is at `path`, None for nothing.  Raises `OSError`."""
        folder, name = os.path.split(path)
        try:
            return entry_at(name, self.enter(folder))
        except FileNotFoundError:
            return None

    def read(self, path: str) -> Reading:
        """Open a file.  Raises `OSError`, `ChangedError` when it is none any more."""
        folder, name = os.path.split(path)
        return Reading(name, self.enter(folder))

    def make(self, path: str, mode: int = 0o777) -> None:
        """Make a folder with the permissions `mode`, if there is none.  Raises `OSError`, `ChangedError`."""
        folder, name = os.path.split(path)
        parent = self.enter(folder)
        try:
            os.mkdir(name, mode, dir_fd=parent)
        except FileExistsError:
            entry = entry_at(name, parent)
            if entry is None or entry.kind != FOLDER:
                raise ChangedError from None

    def remove(self, path: str, expected: Entry) -> None:
        """Remove a file, a link, or a folder that is empty.  Raises `OSError`, `ChangedError`."""
        folder, name = os.path.split(path)
        parent = self.enter(folder)
        if not expected.same(entry_at(name, parent)):
            raise ChangedError
        if expected.kind == FOLDER:
            os.rmdir(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)

    def move(self, path: str, new: str, expected: Entry) -> Entry:
        """Give what is at `path` another name in its folder; return it.  Raises `OSError`, `ChangedError`."""
        folder, name = os.path.split(path)
        parent = self.enter(folder)
        if not expected.same(entry_at(name, parent)) or entry_at(new, parent) is not None:
            raise ChangedError
        os.rename(name, new, src_dir_fd=parent, dst_dir_fd=parent)
        return placed(new, parent)

    def link(self, path: str, target: str, mtime: int, expected: Entry | None) -> Entry:
        """Make a link in place of what is `expected`; return it.  Raises `OSError`, `ChangedError`."""
        folder, name = os.path.split(path)
        parent = self.enter(folder)
        temporary = self._new_name()
        os.symlink(target, temporary, dir_fd=parent)
        try:
            os.utime(temporary, ns=times(mtime), dir_fd=parent, follow_symlinks=False)
            return place(parent, temporary, name, expected)
        except BaseException:
            drop(temporary, parent)
            raise

    def receive(self, path: str, mode: int, mtime: int, expected: Entry | None) -> Incoming:
        """Begin to make a file in place of what is `expected`.  Raises `OSError`, `ChangedError`."""
        folder, name = os.path.split(path)
        parent = self.enter(folder)
        if expected is not None and not expected.same(entry_at(name, parent)):
            raise ChangedError
        return Incoming(os.dup(parent), self._new_name(), name, mode=mode, mtime=mtime, expected=expected)

    def settle(self) -> None:
        """Have all of it on the disk.  Raises `OSError`."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            checked(libc.syncfs(fd))
        finally:
            os.close(fd)

    def _new_name(self) -> str:
        self._count += 1
        return f"{self._names}{self._count}"


def _is_ours(name: str) -> bool:
    """Tell whether a name is one that this program gives to what it has not done yet."""
    process, _, rest = name.removeprefix(TEMPORARY).partition("-")
    random, _, count = rest.partition("-")
    return name.startswith(TEMPORARY) and process.isdecimal() and len(random) == 8 and count.isdecimal()
