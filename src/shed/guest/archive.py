"""Files and folders as a tar stream, and back: both ends of `shed cp`.

The host imports this file as the guest does, for one end is on either side.  It uses the standard library alone, and
neither `pwd` nor `grp`: in a guest those would follow /etc/nsswitch.conf into libraries of the image.

Nothing in a stream is trusted: members are read strictly here, and written by `shed.guest.receiver`.
"""

from __future__ import annotations

import io
import json
import os
import stat
import sys
import tarfile

from shed.guest.receiver import BUFFER, ArchiveError, Receiver, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO, BinaryIO, Literal, Self

    Warn = Callable[[str], None]

__all__ = ["ArchiveError", "extract", "main", "pack", "root_name", "unpack"]
_LONGEST_HEADER = 1 << 20
"""Bytes of an extended header, which is held in memory; names and links are far shorter."""
_PAGE = 4096
"""Bytes that files in /sys say they have; those in /proc say 0."""
_LONGEST_KERNEL_FILE = 16 << 20
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class _Header(tarfile.TarInfo):
    """A member of a tar archive that must be complete.

    `tarfile` takes a stream that is cut or damaged behind a member for one that ends there.
    """

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        """Return the next member.  Raises `tarfile.ReadError` for anything that is neither one nor the end."""
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _EXTENDED and self.size > _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return member


def pack(path: str, out: BinaryIO, *, follow: bool, warn: Warn) -> None:
    """Write `path` and all below it to `out`.  The first member has the last part of `path` as its name.

    For ``FOLDER/.`` it is ``.``.

    With `follow` a link at `path` is followed, as one with a slash behind it always is.  Raises `ArchiveError`, and
    `BrokenPipeError` when nobody takes it.
    """
    real, name = _source(path, follow=follow)
    if os.path.islink(real):
        warn(f"{path} is a link to {os.readlink(real)}, and is copied as one: -L copies what it points to")
    with tarfile.open(fileobj=out, mode="w|", bufsize=BUFFER, format=tarfile.PAX_FORMAT) as archive:
        seen: dict[tuple[int, int], str] = {}
        for place, member in _walk(real, name):
            _add(archive, place, member, seen, warn)
            archive.members = []  # type: ignore[attr-defined]  # else it remembers all of them


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


def _add(archive: tarfile.TarFile, path: str, name: str, seen: dict[tuple[int, int], str], warn: Warn) -> None:
    try:
        status = os.lstat(path)
        member = tarfile.TarInfo(name)
        member.mode, member.uid, member.gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
        member.mtime = status.st_mtime
        if stat.S_ISDIR(status.st_mode):
            member.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(status.st_mode):
            member.type, member.linkname = tarfile.SYMTYPE, os.readlink(path)
        elif not stat.S_ISREG(status.st_mode):
            warn(f"{path} is left out: it is neither a file nor a folder nor a link")
            return
        elif status.st_nlink > 1 and (status.st_dev, status.st_ino) in seen:
            member.type, member.linkname = tarfile.LNKTYPE, seen[status.st_dev, status.st_ino]
        else:
            seen[status.st_dev, status.st_ino] = name
            with open(
                path,
                "rb",
                buffering=0,
                opener=lambda place, flags: os.open(place, flags | os.O_NOFOLLOW | os.O_NONBLOCK),
            ) as file:
                member.size = os.fstat(file.fileno()).st_size
                if member.size > _PAGE:
                    archive.addfile(member, file)
                else:
                    content = _content(file)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
            return
        archive.addfile(member)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ArchiveError(
            f"{path}: {reason(error) if error.errno else 'it became shorter while it was read'}"
        ) from None


def _content(file: IO[bytes]) -> bytes:
    """Return all of a file; the size that the kernel tells of its own is not true.

    Raises `ArchiveError` when it is longer than those.
    """
    parts, size = [], 0
    while data := file.read(BUFFER):
        parts.append(data)
        size += len(data)
        if size > _LONGEST_KERNEL_FILE:
            raise ArchiveError(f"{file.name}: it is longer than its size says")
    return b"".join(parts)


def unpack(stream: IO[bytes], path: str, *, called: str, owners: bool, warn: Warn) -> None:
    """Make `path` what the stream of `pack` holds, or put it into that folder, by the rules of ``docker cp``.

    `called` is the `root_name` of what was asked for, and the stream has no say in it.  With `owners` files keep their
    owners, and their set-user-ID bits.  Raises `ArchiveError`.
    """
    receiver: Receiver | None = None
    root: list[str] = []
    top: list[str] = []
    with _reading(stream, "r|") as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # else it remembers all of them
            parts = _parts(member.name)
            if receiver is None:
                if len(parts) > 1 or (called and bool(parts) == (called == ".")):
                    raise ArchiveError(f"the stream holds {member.name!r}, which nobody asked for")
                root = parts
                folder, top = _destination(path, member.isdir(), parts and [called or parts[0]])
                receiver = Receiver(folder, owners=owners, warn=warn)
            if parts[: len(root)] != root:
                raise ArchiveError(f"the stream holds {member.name!r} beside {'/'.join(root)!r}")
            link = _parts(member.linkname)[len(root) :] if member.islnk() else []
            receiver.take(archive, member, [*top, *parts[len(root) :]], [*top, *link])
        if receiver is None:
            raise ArchiveError("the stream is empty")
        receiver.finish()


def extract(stream: IO[bytes], path: str, *, owners: bool, warn: Warn) -> None:
    """Unpack any tar stream, compressed or not, into the folder `path`.  Raises `ArchiveError`."""
    if not os.path.isdir(path):
        raise ArchiveError(f"{path}: a tar stream needs a folder to go to")
    receiver = Receiver(path, owners=owners, warn=warn)
    with _reading(stream, "r|*") as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # else it remembers all of them
            receiver.take(archive, member, _parts(member.name), _parts(member.linkname) if member.islnk() else [])
        receiver.finish()


class _reading:  # noqa: N801  a context manager, without importing contextlib
    """An archive that is read once, from front to back; what is wrong with it is an `ArchiveError`."""

    def __init__(self, stream: IO[bytes], mode: Literal["r|", "r|*"]) -> None:
        self._stream = stream
        self._mode = mode

    def __enter__(self) -> tarfile.TarFile:
        try:
            self._archive = tarfile.open(fileobj=self._stream, mode=self._mode, bufsize=BUFFER, tarinfo=_Header)
        except (tarfile.TarError, EOFError) as error:
            raise ArchiveError(f"this is not a tar stream: {error}") from None
        return self._archive

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._archive.close()
        if isinstance(error, (tarfile.TarError, EOFError, ValueError)):
            raise ArchiveError(f"the tar stream is damaged: {error}") from None
        if kind is None:
            while self._stream.read(BUFFER):
                pass  # padding: whoever sends it must not find nobody there


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
    import signal

    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))  # the client has gone: what is half done is taken back
    do, path, called, *options = words
    os.umask(0o022)

    def tell(what: str, text: str) -> None:
        os.write(2, json.dumps({what: text}).encode() + b"\n")

    def warn(text: str) -> None:
        tell("warning", text)

    try:
        if do == "pack":
            with open(1, "wb", buffering=0) as out:
                pack(path, out, follow="follow" in options, warn=warn)
        else:
            with open(0, "rb") as stream:
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
