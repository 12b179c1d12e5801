"""Files and folders as a tar stream, and back: both ends of `shed cp`.

The host imports this file as the guest does, for one end is on either side.  It uses the standard library alone, and
neither `pwd` nor `grp`: in a guest those would follow /etc/nsswitch.conf into libraries of the image.

Nothing in a stream is trusted: members are read strictly here, and written by `shed.guest.receiver`.
"""

from __future__ import annotations

import os
import stat
import sys

from shed.guest import tar, wirejson
from shed.guest.receiver import Receiver, reason
from shed.guest.tar import BUFFER, ArchiveError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO, BinaryIO, Protocol

    class Readable(Protocol):
        """Where a stream comes from."""

        def readinto(self, buffer: memoryview, /) -> int | None:
            """Fill some of `buffer`; return how much, 0 at the end."""
            ...

    Warn = Callable[[str], None]

__all__ = ["ArchiveError", "extract", "main", "pack", "root_name", "unpack"]
_PAGE = 4096
"""Bytes that files in /sys say they have; those in /proc say 0."""
_LONGEST_KERNEL_FILE = 16 << 20


def pack(path: str, out: BinaryIO, *, follow: bool, warn: Warn) -> int:
    """Write `path` and all below it to `out`; return the bytes that are in its files.

    The first member has the last part of `path` as its name.  For ``FOLDER/.`` it is ``.``.

    With `follow` a link at `path` is followed, as one with a slash behind it always is.  Raises `ArchiveError`, and
    `BrokenPipeError` when nobody takes it.
    """
    real, name = _source(path, follow=follow)
    if os.path.islink(real):
        warn(f"{path} is a link to {os.readlink(real)}, and is copied as one: -L copies what it points to")
    packer = Packer(out, warn)
    for place, member in _walk(real, name):
        packer.add(place, member)
    packer.finish()
    return packer.content


def _source(path: str, *, follow: bool) -> tuple[str, str]:
    """Return what to read, and the name that its root has in the stream."""
    name = root_name(path)
    folder = name == "." or path.endswith("/")
    try:
        status = os.stat(path) if folder or follow else os.lstat(path)
    except OSError as error:
        raise ArchiveError(f"{path}: {reason(error)}") from None
    if folder and not stat.S_ISDIR(status.st_mode):
        raise ArchiveError(f"{path}: not a folder")
    if stat.S_IFMT(status.st_mode) not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
        raise ArchiveError(f"{path}: neither a file nor a folder nor a link")
    real = os.path.realpath(path) if folder or follow else path
    return real, name or os.path.basename(os.path.realpath(path)) or "."


def root_name(path: str) -> str:
    """Return what `pack` calls the root of `path`: ``.`` when its content alone is meant.

    Empty when only its file system can tell.
    """
    name = os.path.basename(path.rstrip("/"))
    return "" if name == ".." else name


def _walk(path: str, name: str) -> Iterator[tuple[str, str]]:
    """Yield all paths from `path` down, each folder before what is in it, with their names in the stream."""
    ahead = [(path, name)]
    while ahead:
        place, name = ahead.pop()
        yield place, name
        if os.path.isdir(place) and not os.path.islink(place):
            try:
                entries = sorted(os.listdir(place), reverse=True)
            except OSError as error:
                raise ArchiveError(f"{place}: {reason(error)}") from None
            ahead += [(f"{place}/{entry}", f"{name}/{entry}") for entry in entries]


class Packer:
    """Writes members to a stream; short ones are put together."""

    def __init__(self, out: BinaryIO, warn: Warn) -> None:
        self._out = out
        self._warn = warn
        self._seen: dict[tuple[int, int], str] = {}
        self._waiting = bytearray()
        self._size = 0
        self.content = 0
        """Bytes of files so far."""

    def add(self, path: str, name: str, folder: int | None = None) -> None:
        """Write what is at `path`, which may be relative to the open `folder`.  Raises `ArchiveError`."""
        try:
            self._add(path, name, folder)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise ArchiveError(f"{path}: {reason(error)}") from None

    def finish(self) -> None:
        """Write the end."""
        self._put(tar.end(self._size))
        self._flush()

    def _add(self, path: str, name: str, folder: int | None) -> None:
        status = os.stat(path, dir_fd=folder, follow_symlinks=False)
        member = tar.Member(name, tar.FILE)
        member.mode, member.uid, member.gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
        member.mtime = status.st_mtime_ns
        if stat.S_ISDIR(status.st_mode):
            member.kind = tar.FOLDER
            member.name += "/"
        elif stat.S_ISLNK(status.st_mode):
            member.kind, member.link = tar.LINK, os.readlink(path, dir_fd=folder)
        elif not stat.S_ISREG(status.st_mode):
            self._warn(f"{path} is left out: it is neither a file nor a folder nor a link")
            return
        elif status.st_nlink > 1 and (status.st_dev, status.st_ino) in self._seen:
            member.kind, member.link = tar.HARD_LINK, self._seen[status.st_dev, status.st_ino]
        else:
            self._seen[status.st_dev, status.st_ino] = name
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            try:
                self._add_file(path, member, fd)
            finally:
                os.close(fd)
            return
        self._put(tar.header(member))

    def _add_file(self, path: str, member: tar.Member, fd: int) -> None:
        member.size = os.fstat(fd).st_size
        if member.size <= _PAGE:
            content = _content(path, fd)
            member.size = len(content)
            self.content += member.size
            self._put(tar.header(member) + tar.padded(content))
            return
        self._put(tar.header(member))
        self.content += member.size
        left = member.size
        while left:
            content = os.read(fd, min(left, BUFFER))
            if not content:
                raise ArchiveError(f"{path}: it became shorter while it was read")
            left -= len(content)
            self._put(content)
        self._put(tar.padding(member.size))

    def _put(self, data: bytes) -> None:
        self._size += len(data)
        if len(data) < BUFFER:
            self._waiting += data
        else:
            self._flush()
            self._write(data)
        if len(self._waiting) >= BUFFER:
            self._flush()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, bytearray()
        self._write(waiting)

    def _write(self, data: bytes | bytearray) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._out.write(rest) :]


def _content(path: str, fd: int) -> bytes:
    """Return all of a file; the size that the kernel tells of its own is not true.

    Raises `ArchiveError` when it is longer than those.
    """
    parts, size = [], 0
    while data := os.read(fd, BUFFER):
        parts.append(data)
        size += len(data)
        if size > _LONGEST_KERNEL_FILE:
            raise ArchiveError(f"{path}: it is longer than its size says")
    return b"".join(parts)


def unpack(stream: Readable, path: str, *, called: str, owners: bool, warn: Warn) -> int:
    """Make `path` what the stream of `pack` holds, or put it into that folder, by the rules of ``docker cp``.

    Return the bytes that are in its files.

    `called` is the `root_name` of what was asked for, and the stream has no say in it.  With `owners` files keep their
    owners, and their set-user-ID bits.  Raises `ArchiveError`.
    """
    receiver: Receiver | None = None
    root: list[str] = []
    top: list[str] = []
    size = 0
    reader = tar.Reader(stream.readinto)
    while (member := reader.next()) is not None:
        parts = _parts(member.name)
        if receiver is None:
            if len(parts) > 1 or (called and bool(parts) == (called == ".")):
                raise ArchiveError(f"the stream holds {member.name!r}, which nobody asked for")
            root = parts
            folder, top = _destination(path, member.kind == tar.FOLDER, parts and [called or parts[0]])
            receiver = Receiver(folder, owners=owners, warn=warn)
        if parts[: len(root)] != root:
            raise ArchiveError(f"the stream holds {member.name!r} beside {'/'.join(root)!r}")
        link = _parts(member.link)[len(root) :] if member.kind == tar.HARD_LINK else []
        receiver.take(member, reader.content(), [*top, *parts[len(root) :]], [*top, *link])
        size += member.size if member.kind == tar.FILE else 0
    if receiver is None:
        raise ArchiveError("the stream is empty")
    receiver.finish()
    reader.finish()
    return size


def extract(stream: IO[bytes], path: str, *, owners: bool, warn: Warn) -> None:
    """Unpack any tar stream, compressed or not, into the folder `path`.  Raises `ArchiveError`."""
    if not os.path.isdir(path):
        raise ArchiveError(f"{path}: a tar stream needs a folder to go to")
    from shed.guest import anytar

    receiver = Receiver(path, owners=owners, warn=warn)
    with anytar.reading(stream) as archive:
        for entry in archive:
            archive.members = []  # type: ignore[attr-defined]  # else it remembers all of them
            member = anytar.member(entry)
            link = _parts(member.link) if member.kind == tar.HARD_LINK else []
            receiver.take(member, anytar.content(archive, entry), _parts(member.name), link)
        receiver.finish()


def _parts(name: str) -> list[str]:
    """Return the parts of a member's name, none for the folder itself.  Raises `ArchiveError` for one that leads up."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ArchiveError(f"the stream holds {name!r}, which leads out of its folder")
    return parts


def _destination(path: str, is_folder: bool, root: list[str]) -> tuple[str, list[str]]:
    """Return the folder to write to, and what the stream's root is called there: nothing when it is that folder."""
    named_folder = path.endswith(("/", "/.")) or path in (".", "..")
    if os.path.isdir(path):
        return path, root
    if os.path.exists(path.rstrip("/")):
        if named_folder or is_folder:
            raise ArchiveError(f"{path}: not a folder")
    elif named_folder and not is_folder:
        raise ArchiveError(f"{path}: there is no such folder")
    folder, name = os.path.split(os.path.realpath(path))
    if not os.path.isdir(folder):
        raise ArchiveError(f"{path}: there is no folder {folder}")
    return folder, [name]


def main(words: list[str]) -> int:
    """Be one end of a copy in a guest.

    The arguments are ``pack``, ``unpack`` or ``extract``, a path, the root's name, then ``follow`` or ``owners`` where
    wanted.

    What is to be told goes to standard error, an object per line: {"warning": …} or {"error": …}.  Returns 0, or 1
    after an error.
    """
    import _signal  # type: ignore[import-not-found]

    _signal.signal(_signal.SIGHUP, lambda *_: sys.exit(129))  # the client has gone: what is half done is taken back
    do, path, called, *options = words
    os.umask(0o022)

    def tell(what: str, text: str) -> None:
        os.write(2, wirejson.dumps({what: text}) + b"\n")

    def warn(text: str) -> None:
        tell("warning", text)

    try:
        if do == "pack":
            with open(1, "wb", buffering=0) as out:
                pack(path, out, follow="follow" in options, warn=warn)
        else:
            with open(0, "rb", buffering=0) as stream:
                if do == "unpack":
                    unpack(stream, path, called=called, owners="owners" in options, warn=warn)
                else:
                    extract(stream, path, owners="owners" in options, warn=warn)
    except ArchiveError as error:
        tell("error", str(error))
        return 1
    except BrokenPipeError:  # nobody takes it any more
        return 1
    return 0
