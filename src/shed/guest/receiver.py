"""Writing the members of a tar stream below one folder, and nowhere else.

It goes from folder to folder by descriptors and never through a link, so that nothing is written outside the folder it
was given.  A file gets its name when all of it is there.
"""

from __future__ import annotations

import os
import stat

from shed.guest import tar
from shed.guest.tar import ArchiveError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Warn = Callable[[str], None]

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_FURTHEST = (1 << 33) * 1_000_000_000
"""Nanoseconds from 1970 of the times that are kept."""


class Receiver:
    """Puts members into a folder, and never anywhere else."""

    def __init__(self, folder: str, *, owners: bool, warn: Warn) -> None:
        self._folder = folder
        self._owners = owners
        self._warn = warn
        self._folders: dict[tuple[str, ...], tar.Member] = {}
        self._parent: tuple[list[str], int] | None = None
        """The folder that was written to last, and its descriptor."""
        self._names = f".shed-cp-{os.getpid()}-{os.urandom(4).hex()}-"
        self._count = 0

    def take(self, member: tar.Member, content: Iterator[memoryview], parts: list[str], link: list[str]) -> None:
        """Make what `member` is, as `parts` below the folder; `link` is what a hard link names.

        Raises `ArchiveError`.
        """
        if not parts:
            if member.kind != tar.FOLDER:
                raise ArchiveError("the stream's root is not a folder")
            return  # it is there, and stays as it is
        try:
            parent = self._enter(parts[:-1])
            if member.kind == tar.FOLDER:
                self._make_folder(parent, parts[-1])
                self._folders[tuple(parts)] = member
            elif member.kind == tar.FILE:
                self._replace(parent, parts, lambda name: self._write(member, content, parent, name))
            elif member.kind == tar.LINK:
                self._replace(parent, parts, lambda name: self._make_link(member, parent, name))
            elif member.kind == tar.HARD_LINK:
                self._link(parts, link)
            else:
                self._warn(f"{member.name} is left out: it is neither a file nor a folder nor a link")
        except OSError as error:
            raise ArchiveError(f"{'/'.join([self._folder.rstrip('/'), *parts])}: {reason(error)}") from None

    def finish(self) -> None:
        """Give the folders their modes and times, now that nothing is written to them any more."""
        for parts, member in sorted(self._folders.items(), reverse=True):
            try:
                self._settle(member, self._enter(list(parts)))
            except OSError as error:
                raise ArchiveError(f"{'/'.join([self._folder.rstrip('/'), *parts])}: {reason(error)}") from None
        self._leave()

    def _enter(self, parts: list[str]) -> int:
        """Return a descriptor of a folder below ours, making what is missing of it; it is good until the next call."""
        if self._parent is not None and self._parent[0] == parts:
            return self._parent[1]
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                try:
                    below = os.open(part, _OPEN_FOLDER, dir_fd=fd)
                except FileNotFoundError:
                    os.mkdir(part, dir_fd=fd)
                    below = os.open(part, _OPEN_FOLDER, dir_fd=fd)
                os.close(fd)
                fd = below
        except BaseException:
            os.close(fd)
            raise
        self._leave()
        self._parent = (parts, fd)
        return fd

    def _leave(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None

    def _make_folder(self, parent: int, name: str) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                raise

    def _replace(self, parent: int, parts: list[str], make: Callable[[str], None]) -> None:
        """Have `make` make something under another name, and put it where it belongs."""
        self._count += 1
        name = f"{self._names}{self._count}"
        try:
            make(name)
            os.rename(name, parts[-1], src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            try:
                os.unlink(name, dir_fd=parent)
            except OSError:
                pass
            raise

    def _write(self, member: tar.Member, content: Iterator[memoryview], parent: int, name: str) -> None:
        fd = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        try:
            for piece in content:
                rest = piece
                while rest:
                    rest = rest[os.write(fd, rest) :]
            self._settle(member, fd)
        finally:
            os.close(fd)

    def _make_link(self, member: tar.Member, parent: int, name: str) -> None:
        os.symlink(member.link, name, dir_fd=parent)
        if self._may_own():
            os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=_times(member), dir_fd=parent, follow_symlinks=False)

    def _link(self, parts: list[str], link: list[str]) -> None:
        """Make a hard link to a file that came before; `parts` and `link` can be in different folders."""
        if not link:
            raise ArchiveError("the stream holds a link to its root")
        source = os.dup(self._enter(link[:-1]))
        try:
            if not stat.S_ISREG(os.stat(link[-1], dir_fd=source, follow_symlinks=False).st_mode):
                raise ArchiveError(f"the stream holds a hard link to {'/'.join(link)!r}, which is no file")
            parent = self._enter(parts[:-1])
            self._replace(
                parent,
                parts,
                lambda name: os.link(link[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False),
            )
        finally:
            os.close(source)

    def _settle(self, member: tar.Member, fd: int) -> None:
        if self._may_own():
            os.fchown(fd, member.uid, member.gid)
        os.fchmod(fd, member.mode & (0o7777 if self._owners else 0o1777))
        os.utime(fd, ns=_times(member))

    def _may_own(self) -> bool:
        return self._owners and os.geteuid() == 0


def _times(member: tar.Member) -> tuple[int, int]:
    nanoseconds = min(max(member.mtime, -_FURTHEST), _FURTHEST)
    return nanoseconds, nanoseconds


def reason(error: OSError) -> str:
    """Return what went wrong, in words."""
    reasons = {
        FileExistsError: "a file is in the place of a folder",
        IsADirectoryError: "a folder is in the place of a file",
        NotADirectoryError: "not a folder",
    }
    return reasons.get(type(error)) or error.strerror or str(error)
