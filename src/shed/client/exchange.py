"""A folder of this machine whose files a shed's programs may have, and to which some of theirs come.

A shed may share that folder, and change it at each moment; so nothing in it is reached by a path: each folder on the
way is opened without following a link, and read or written by its descriptor.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from shed.client.address import Address
from shed.client.copying import Copy, CopyError, Counted, Place, Sink
from shed.client.dangers import danger, is_git, is_hidden
from shed.errors import DataError, ForbiddenError, NotFoundError, UsageError
from shed.guest import archive, tar
from shed.guest.receiver import Receiver
from shed.linux import plain
from shed.sizes import format_size
from shed.untrusted import told

INCOMING = "from-sheds"
"""Below the folder: what comes is in there, and nothing of its user's, so that it is in the place of no file that some
program looks for."""
MOST_FILES = 10_000
"""Files and folders that one copy from a shed may have."""
MOST_BYTES = 4 << 30
"""Bytes that come in all."""
_FREE = 256 << 20
"""Bytes of the disk that stay free."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SHOWN = 100


class Exchange:
    """The folder `path`, which is held open.  Raises `UsageError` when a link leads there, or it is git's."""

    def __init__(self, path: Path) -> None:
        if any(map(is_git, path.parts)):
            raise UsageError(f"{path} is git's own", code="INVALID_LOCAL_DIR", hint="name another folder")
        try:
            self._fd = plain.open_folder(str(path))
        except OSError as error:
            raise UsageError(
                f"{path} is no folder, or a link is on the way",
                code="INVALID_LOCAL_DIR",
                hint=f"name an existing folder, without links: {os.path.realpath(path)}",
            ) from error
        self._left = MOST_BYTES
        self._receiving = threading.Lock()

    def pack(self, path: str, out: BinaryIO) -> int:
        """Write what is at `path`, which is below the folder, to `out` as `shed.guest.archive.pack` does."""
        *folders, name = _parts(path)
        parent = self._enter(folders, path)
        try:
            packer = archive.Packer(out, lambda text: None)
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                raise _elsewhere(path)
            packer.add(name, name, parent)
            if stat.S_ISDIR(status.st_mode):
                for here, below, files, place in os.fwalk(name, dir_fd=parent, onerror=_fail, follow_symlinks=False):
                    below.sort()
                    for each in sorted([*below, *files]):
                        packer.add(each, f"{here}/{each}", place)
            packer.finish()
            return packer.content
        except FileNotFoundError:
            raise NotFoundError(f"there is no {told(path, _SHOWN)} in the user's folder") from None
        finally:
            os.close(parent)

    def unpack(self, stream: archive.Readable, name: str) -> int:
        """Make `name` in `INCOMING` what `stream` holds; nothing is there when that fails.  Return the bytes of files.

        Only files and folders come, and nobody may execute them.  Raises `DataError` for what programs here might run
        by themselves, and for too much of it.
        """
        with self._receiving:
            into = self._incoming()
            try:
                return self._take(stream, name, into)
            finally:
                os.close(into)

    def _take(self, stream: archive.Readable, name: str, into: int) -> int:
        reader, size, count, claimed = tar.Reader(stream.readinto), 0, 0, False
        receiver = Receiver(f"/proc/self/fd/{into}", owners=False, warn=lambda text: None)
        root: list[str] | None = None
        try:
            while (member := reader.next()) is not None:
                parts = [part for part in member.name.split("/") if part not in ("", ".")]
                first = root is None
                if root is None:
                    root = parts[:1]
                if ".." in parts or parts[: len(root)] != root or (first and parts != root):
                    raise DataError(f"the shed sends {told(member.name)}, which nobody asked for")
                place = [name, *parts[len(root) :]]
                self._check(place, member)
                count += 1
                if count > MOST_FILES:
                    raise DataError(f"there are more than {MOST_FILES} files", hint="copy less, or pack it with tar")
                if first:
                    _claim(name, into, folder=member.kind == tar.FOLDER)
                    claimed = True
                if member.kind == tar.FILE:
                    self._left -= member.size
                    size += member.size
                member.mode = member.mode & 0o755 | 0o700 if member.kind == tar.FOLDER else member.mode & 0o644 | 0o600
                receiver.take(member, reader.content(), place, [])
            if root is None:
                raise DataError("the shed sends nothing")
            receiver.finish()
            reader.finish()
        except BaseException:
            if claimed:
                _remove(name, into)
            raise
        return size

    def _check(self, place: list[str], member: tar.Member) -> None:
        """Raise `DataError` for a member that does not come."""
        shown = told("/".join(place), _SHOWN)
        if member.kind not in (tar.FILE, tar.FOLDER):
            raise DataError(f"{shown} is no file", hint="leave out links: pack what you mean with tar")
        if why := refused("/".join(place)):
            raise DataError(f"{shown}: {why}", hint="leave it out: copy the files that you mean")
        free = os.fstatvfs(self._fd)
        if member.kind == tar.FILE and member.size > self._left:
            raise DataError(f"this session has copied {format_size(MOST_BYTES)}", hint="let the user fetch it")
        if member.kind == tar.FILE and member.size > free.f_bavail * free.f_frsize - _FREE:
            raise DataError(f"the user's disk has no room for {shown}", hint="copy less of it")

    def _incoming(self) -> int:
        try:
            try:
                return os.open(INCOMING, _FOLDER, dir_fd=self._fd)
            except FileNotFoundError:
                os.mkdir(INCOMING, dir_fd=self._fd)
                return os.open(INCOMING, _FOLDER, dir_fd=self._fd)
        except OSError as error:
            raise UsageError(f"{INCOMING} of the user's folder is no folder: {error.strerror}") from None

    def _enter(self, folders: list[str], path: str) -> int:
        """Return a descriptor of a folder below this one."""
        found = os.dup(self._fd)
        for part in folders:
            outer = found
            try:
                found = os.open(part, _FOLDER, dir_fd=outer)
            except FileNotFoundError:
                raise NotFoundError(f"there is no {told(path, _SHOWN)} in the user's folder") from None
            except OSError:
                raise _elsewhere(path) from None
            finally:
                os.close(outer)
        return found


class Exchanged(Copy):
    """A copy between a shed on the server at `address` and `exchange`, where a path is below that folder."""

    def __init__(self, exchange: Exchange, address: Address, source: Place, target: Place, *, on_event: Sink) -> None:
        super().__init__(lambda _: address, source, target, on_event=on_event)
        self._exchange = exchange
        if source.name:
            check_incoming(target.path)
        else:
            _parts(source.path)

    def _send(self, out: BinaryIO) -> None:
        if self._source.name:
            super()._send(out)
            return
        with _told():
            counted = cast(BinaryIO, Counted(out, self._count))
            self._content = self._exchange.pack(self._source.path, counted)

    def _receive(self, incoming: BinaryIO) -> None:
        if self._target.name:
            super()._receive(incoming)
            return
        with _told():
            self._content = self._exchange.unpack(Counted(incoming, self._count), self._target.path)


def check_incoming(name: str) -> None:
    """Raise `UsageError` for what is no name of something that comes, by itself."""
    if "/" in name or name in ("", "..") or not name.isprintable() or len(name.encode()) > 255:
        raise UsageError(f"{told(name, _SHOWN)} is not one name", hint=f"it goes to {INCOMING}: say no folder")
    if why := refused(name):
        raise UsageError(f"{told(name, _SHOWN)}: {why}", hint="choose another name")


def refused(path: str) -> str:
    """Return why what is at `path` below `INCOMING` does not come, or nothing."""
    if any(is_hidden(part) or is_git(part) for part in path.split("/")):
        return "a hidden name"
    return danger(f"{INCOMING}/{path}", [])


def _parts(path: str) -> list[str]:
    """Return the parts of a path below the folder.  Raises `ForbiddenError`."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or not parts or not path.isprintable():
        raise _elsewhere(path)
    return parts


def _elsewhere(path: str) -> ForbiddenError:
    return ForbiddenError(
        f"{told(path, _SHOWN)} is not in the folder that this session may use, or a link is on the way",
        hint="name a file below it, such as results/out.txt",
    )


def _claim(name: str, folder_fd: int, *, folder: bool) -> None:
    try:
        if folder:
            os.mkdir(name, 0o700, dir_fd=folder_fd)
        else:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder_fd))
    except FileExistsError:
        raise UsageError(f"{INCOMING}/{name} is there already", hint="choose another name") from None


def _remove(name: str, folder_fd: int) -> None:
    try:
        os.unlink(name, dir_fd=folder_fd)
    except IsADirectoryError:
        shutil.rmtree(name, ignore_errors=True, dir_fd=folder_fd)
    except FileNotFoundError:
        pass


def _fail(error: OSError) -> None:
    raise error


@contextmanager
def _told() -> Iterator[None]:
    """Have what goes wrong here be one error."""
    try:
        yield
    except archive.ArchiveError as error:
        raise CopyError(re.sub(r"/proc/self/fd/\d+", INCOMING, str(error))) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CopyError(f"the user's folder: {error.strerror}") from None
