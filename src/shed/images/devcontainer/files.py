"""Files of features, and of what a Dockerfile is built from: copied, unpacked and hashed, with nothing trusted.

A feature is made of files and folders alone.  It comes into a new folder that nobody else writes to, so that no name in
it leads elsewhere.  A project's folder may be one that a guest writes to at this moment: no link below it is followed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from shed.budget import Reserve
from shed.errors import DataError
from shed.fsutil import storage_errors
from shed.oci.content import FileSlice, Source
from shed.oci.decompression import HEAD, SourceReader, Spool, compression, decoder_errors, decompressed
from shed.oci.digest import Digest
from shed.oci.flatten import split
from shed.oci.tarstream import read_tar
from shed.oci.unpack_limits import Part, Unpacking
from shed.untrusted import told

MOST_BYTES, MOST_FILES = 256 << 20, 10_000
"""Most bytes and files of one feature."""
_MOST_MEMORY = 32 << 20
_CHUNK = 1 << 20
_LINKS = "a feature is made of files and folders alone"


def counting(reserve: Reserve, most: int = MOST_BYTES) -> Unpacking:
    """Return what counts the files of one feature, and its bytes, of which there may be `most` at most."""
    return Unpacking(reserve, bytes_=min(most, MOST_BYTES), members=MOST_FILES, memory=_MOST_MEMORY)


def unpack_feature(archive: FileSlice, folder: Path, scratch: Path, part: Part) -> None:
    """Unpack the tar archive of a feature, which may be compressed, into the new folder `folder`.

    Raises `DataError` for one that is damaged, too large, or holds more than files and folders.
    """
    what = part.what
    head = archive.pread(HEAD, 0)
    with Spool(scratch, part) as spool, storage_errors(folder):
        folder.mkdir(parents=True)
        if compression(head):
            with decoder_errors(what):
                for data in decompressed(SourceReader(archive, lambda data: part.took(len(data))), head):
                    spool.write(data)
            archive = spool.finish()
        for member in read_tar(archive, part):
            parts = [os.fsdecode(each) for each in split(member.name)]
            target = folder.joinpath(*parts)
            if not parts and stat.S_ISDIR(member.mode):
                continue
            try:
                if stat.S_ISDIR(member.mode):
                    target.mkdir(parents=True, exist_ok=True)
                elif stat.S_ISREG(member.mode):
                    part.spend(member.size)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _write(target, member.content, member.size, executable=bool(member.mode & 0o111))
                else:
                    raise DataError(f"{what}: {told('/'.join(parts))} is a link or a device: {_LINKS}")
            except (FileExistsError, IsADirectoryError, NotADirectoryError):
                raise DataError(f"{what}: {told('/'.join(parts))} is a file and a folder") from None


def _write(target: Path, content: Source | None, size: int, *, executable: bool) -> None:
    with target.open("wb") as file:
        for start in range(0, size, _CHUNK):
            file.write(content.pread(min(_CHUNK, size - start), start) if content else b"")
    target.chmod(0o755 if executable else 0o644)


def copy_feature(project: Path, source: Path, folder: Path, part: Part) -> None:
    """Copy a feature, the folder `source` below `project`, into the new folder `folder`.

    Raises `DataError` as `unpack_feature` does.
    """
    for name, status, place in _walk(project, source):
        part.member(len(name))
        with storage_errors(folder):
            if stat.S_ISDIR(status.st_mode):
                (folder / name).mkdir(parents=True, exist_ok=True)
                continue
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{part.what}: {told(name)} is a link or a device: {_LINKS}")
            part.spend(status.st_size)
            with _opened(name, place) as content:
                _write(folder / name, content, content.size, executable=bool(status.st_mode & 0o111))


def copy_context(project: Path, source: Path, folder: Path, reserve: Reserve) -> None:
    """Copy what a builder may read, the folder `source` below `project`, into the new folder `folder`.

    Links stay links, which builders follow within their context alone; sockets and devices are left out.  Whoever
    changes the project meanwhile can have nothing read that is not in it.  Raises `StorageError`.
    """
    folders = []
    for name, status, place in _walk(project, source):
        target = folder / name
        with storage_errors(folder):
            if stat.S_ISDIR(status.st_mode):
                target.mkdir(parents=True, exist_ok=True)
                folders.append((target, stat.S_IMODE(status.st_mode) | stat.S_IRWXU))  # else nobody could remove it
            elif stat.S_ISLNK(status.st_mode):
                target.symlink_to(_link(name, place))
            elif stat.S_ISREG(status.st_mode):
                reserve.check(status.st_size)
                with _opened(name, place) as content:
                    _write(target, content, content.size, executable=False)
                target.chmod(stat.S_IMODE(status.st_mode))
    for target, mode in reversed(folders):  # one that may not be written to is full by now
        target.chmod(mode)


def read_below(project: Path, path: Path, most: int) -> bytes:
    """Return the file `path` below `project`, which is no link.

    Raises `DataError` for more than `most` bytes, and for what cannot be read.
    """
    place = _open_folder(project, path.parent)
    try:
        with _opened(path.name, place) as content:
            if content.size > most:
                raise DataError(f"{path} has more than {most} bytes")
            return content.pread(content.size, 0)
    finally:
        os.close(place)


def tree_digest(folder: Path) -> Digest:
    """Return a digest of `folder`: names, kinds, rights, contents, targets of links; no times, owners, or devices."""
    total = hashlib.sha256()
    for name, status, place in _walk(folder, folder):
        content = hashlib.sha256()
        if stat.S_ISREG(status.st_mode):
            with _opened(name, place) as file:
                for start in range(0, file.size, _CHUNK):
                    content.update(file.pread(_CHUNK, start))
        elif stat.S_ISLNK(status.st_mode):
            content.update(os.fsencode(_link(name, place)))
        elif not stat.S_ISDIR(status.st_mode):
            continue
        mode = status.st_mode | (stat.S_IRWXU if stat.S_ISDIR(status.st_mode) else 0)  # as copies have it
        shown = os.fsencode(name)
        total.update(b"%d %o %s %s\0" % (len(shown), mode, shown, content.hexdigest().encode()))
    return Digest(f"sha256:{total.hexdigest()}")


def _walk(top: Path, folder: Path) -> Iterator[tuple[str, os.stat_result, int]]:
    """Yield what is in `folder` and below it, in an order that is always the same: name, status, its open folder.

    `folder` is `top` or below it, and comes first, as ``.``.  No link below `top` is followed.  Raises `DataError` for
    what cannot be read, or is gone meanwhile.
    """

    def cannot(error: OSError) -> None:
        raise error

    fd = _open_folder(top, folder)
    try:
        yield ".", os.fstat(fd), fd
        for here, folders, files, place in os.fwalk(".", dir_fd=fd, follow_symlinks=False, onerror=cannot):
            folders.sort()
            for name in sorted([*folders, *files]):
                status = os.stat(name, dir_fd=place, follow_symlinks=False)
                yield os.path.normpath(f"{here}/{name}"), status, place
    except OSError as error:
        raise _unreadable(folder, error) from None
    finally:
        os.close(fd)


def _open_folder(top: Path, folder: Path) -> int:
    """Open `folder`, which is `top` or below it, without following a link below `top`."""
    try:
        parts = folder.resolve().relative_to(top.resolve()).parts
        fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for part in parts:
            outer, fd = fd, -1
            try:
                fd = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=outer)
            finally:
                os.close(outer)
        return fd
    except ValueError:
        raise DataError(f"{folder} leads out of {top}") from None
    except (OSError, RuntimeError) as error:
        raise _unreadable(folder, error) from None


@contextlib.contextmanager
def _opened(name: str, place: int) -> Iterator[FileSlice]:
    """Yield the regular file whose last name is that of `name`, in the open folder `place`."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(name.rpartition("/")[2], flags, dir_fd=place)
    except OSError as error:
        raise _unreadable(name, error) from None
    try:
        status = os.fstat(fd)
        yield FileSlice(fd, 0, status.st_size if stat.S_ISREG(status.st_mode) else 0)
    finally:
        os.close(fd)


def _link(name: str, place: int) -> str:
    """Return where the link leads whose last name is that of `name`, in the open folder `place`."""
    try:
        return os.readlink(name.rpartition("/")[2], dir_fd=place)
    except OSError as error:
        raise _unreadable(name, error) from None


def _unreadable(path: Path | str, error: OSError | RuntimeError) -> DataError:
    """Return the error for what cannot be read; the system names the file that it is about, if it is another one."""
    number = error.errno if isinstance(error, OSError) else errno.ELOOP
    why = "it is a link, or below one" if number == errno.ELOOP else os.strerror(number or errno.EIO)
    inner = getattr(error, "filename", None)
    name = f"{path}: {inner}" if inner and str(inner) != str(path) else str(path)
    return DataError(f"{told(name)} cannot be read: {why}", hint="a project's files are read as they are: mend that")
