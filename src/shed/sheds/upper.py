"""The writable layer of a shed: a clone of an empty ext4 that came ready-made in the runtime blob.

A runtime has some of several sizes.  The largest that is not too large is the template: taken out of the runtime once,
and kept sparse. Nothing here formats: where the template is smaller than what is wanted, the clone is only made longer,
and the guest's kernel grows the file system into it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from shed.errors import DataError, NotFoundError, StorageError, UsageError
from shed.fsutil import atomic_file, clone_file, locked, storage_errors
from shed.names import MAX_UPPER, MIN_UPPER
from shed.progress import Progress, Stop
from shed.sizes import format_size

if TYPE_CHECKING:
    from shed.erofs.reader import Image

_READY = "share/uppers"
"""Folder of the runtime with ready-made ones: a file named ``5G`` for 5 GiB, in the layout of
`shed.images.bootkit.upper`.
"""
_READY_NAME = re.compile(rb"([1-9][0-9]{0,3})G")
_READY_MOST = 16 << 20
"""Bytes of such a file; the largest has a tenth of that."""
_SMALL = "share/upper.ext4"
"""What each runtime has, and those of older boot kits have alone: an ext4 as it is, smaller than any shed's."""
_TEMPLATE = re.compile(r"upper-([^-]+)(?:-[0-9]+G)?\.ext4")
_REBUILD = "build the boot kit again: shed image bootkit build"
_RESERVE = 32 << 20
"""Bytes that must stay free beside the clone: a guest whose disk image cannot grow at all sees I/O errors at its first
write.
"""
_MAGIC_OFFSET = 1080
_MAGIC = b"\x53\xef"
"""``s_magic`` of the ext4 superblock, 56 bytes into it at 1024; kernel documentation, ext4/globals."""
_STATE_OFFSET, _ERRORS_DETECTED = 1082, 2
"""``s_state``, behind it, and its bit of a kernel that found an error; only e2fsck takes it away."""


def check_upper_size(size: int) -> int:
    """Return `size`, in bytes, when a writable layer can have it.  Raises `UsageError`."""
    if MIN_UPPER <= size <= MAX_UPPER:
        return size
    raise UsageError(f"a writable layer of {format_size(size)} is not possible", hint="choose from 1G to 100G")


def template(templates: Path, runtime: Path, size: int) -> Path:
    """Return an empty ext4 for a layer of `size` bytes.

    It is the largest in the EROFS blob `runtime` (named by its digest) that is not larger.

    It is extracted on first use.  Raises `DataError` when the blob has none that is whole, `StorageError` when the disk
    refuses.
    """
    ready = max((each for each in _ready_sizes(runtime) if each <= size), default=None)
    path = templates / (f"upper-{runtime.name}.ext4" if ready is None else f"upper-{runtime.name}-{ready >> 30}G.ext4")
    if path.exists():
        return path
    with locked(templates / ".lock"):
        if not path.exists():
            for left in templates.glob(".upper-*.tmp"):  # of a server that was killed while it extracted
                left.unlink()
            _extract(runtime, ready, path)
    return path


def runtime_of(path: Path) -> str | None:
    """Return the name of the blob that the template `path` is of; None when it is no template."""
    match = _TEMPLATE.fullmatch(path.name)
    return match and match[1]


def make_upper(
    source: Path, target: Path, size: int, progress: Progress | None = None, stop: Stop | None = None
) -> None:
    """Make `target`, in a new folder, a sparse clone of the writable layer `source` of `size` bytes.

    Raises `StorageError`, and what `stop` does.
    """
    with storage_errors(target):
        target.parent.mkdir(mode=0o700)
    clone(source, target, size, progress or Progress(), stop or Stop())


def clone(source: Path, target: Path, size: int, progress: Progress, stop: Stop) -> None:
    """Make `target` a sparse clone of `source` of `size` bytes, which are not fewer than it has.

    Raises `StorageError`, and what `stop` does.
    """
    with storage_errors(target), target.open("xb") as file:
        os.fchmod(file.fileno(), 0o600)
        _fill(file, source, target.parent, size, progress=progress, stop=stop)
        os.fsync(file.fileno())


def replace_upper(source: Path, target: Path, size: int, progress: Progress, stop: Stop) -> None:
    """Put a sparse clone of `source`, of `size` bytes, in place of the writable layer `target`, in one step.

    Raises `StorageError`, and what `stop` does; then `target` is as it was.
    """
    with storage_errors(target), atomic_file(target, mode=0o600) as file:
        _fill(file, source, target.parent, size, progress=progress, stop=stop)


def _fill(file: BinaryIO, source: Path, folder: Path, size: int, *, progress: Progress, stop: Stop) -> None:
    data, done = source.stat().st_blocks * 512, 0

    def copied(count: int) -> None:
        nonlocal done
        stop.check()
        done += count
        progress.bytes("writable layer", done, max(data, done))

    needed, free = data + _RESERVE, shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(
            f"no space for a writable layer in {folder.parent}: {format_size(free)} free, {format_size(needed)} needed",
            code="NO_SPACE",
            hint="free some space, for example: shed delete NAME",
        )
    clone_file(source, file, copied)
    file.truncate(size)


def has_errors(path: Path) -> bool:
    """Return whether the guest's kernel has noted an error in the writable layer `path`.

    It does when it could not write or not understand something.
    """
    try:
        with path.open("rb", buffering=0) as file:
            return bool(os.pread(file.fileno(), 1, _STATE_OFFSET)[0] & _ERRORS_DETECTED)
    except (OSError, IndexError):  # whoever needs the file says what is wrong with it
        return False


def repair(path: Path) -> str:
    """Return what the user is to do about a writable layer with errors, once its shed is stopped."""
    return f"e2fsck -fy {shlex.quote(str(path))}"


@lru_cache(maxsize=32)
def _ready_sizes(runtime: Path) -> tuple[int, ...]:
    """Return of how many bytes the ready-made ones of `runtime` are; a blob never changes, so it is asked once."""
    with _opened(runtime, _READY) as image:
        try:
            folder = image.lookup(_READY.encode())
        except NotFoundError:
            return ()
        names = [_READY_NAME.fullmatch(entry.name) for entry in image.entries(folder)]
    return tuple(int(name[1]) << 30 for name in names if name)


def _extract(runtime: Path, ready: int | None, path: Path) -> None:
    from shed.images.bootkit.upper import unpack_upper  # noqa: PLC0415  needed once per template

    name = _SMALL if ready is None else f"{_READY}/{ready >> 30}G"
    with _opened(runtime, name) as image:
        try:
            inode = image.lookup(name.encode())
        except NotFoundError:
            raise DataError("not there") from None
        with atomic_file(path, mode=0o400) as file:
            if ready is None:
                image.extract(inode, file.fileno())
            elif inode.size > _READY_MOST:
                raise DataError(f"{inode.size} bytes are too many")
            else:
                unpack_upper(image.read(inode, 0, inode.size), ready, file)
                file.flush()
            if os.pread(file.fileno(), len(_MAGIC), _MAGIC_OFFSET) != _MAGIC:
                raise DataError("not ext4")


@contextlib.contextmanager
def _opened(runtime: Path, name: str) -> Iterator[Image]:
    """Open a blob to read `name`; a `DataError` then says of both, and what to do."""
    from shed.erofs.reader import Image  # noqa: PLC0415  needed once per template

    try:
        with Image.open(runtime) as image:
            yield image
    except DataError as error:
        raise DataError(f"{name} in the runtime blob {runtime}: {error.message}", hint=_REBUILD) from None
