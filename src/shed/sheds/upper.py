"""The writable layer of a shed: a clone of an empty ext4 that came ready-made in the runtime blob.

The template is taken out of the runtime once per runtime and kept sparse.  Nothing here formats: the clone is only made longer, and the
guest's kernel grows the file system into it.
"""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

from shed.config.server import MAX_UPPER, MIN_UPPER
from shed.config.sizes import format_size
from shed.errors import DataError, NotFoundError, StorageError, UsageError
from shed.fsutil import atomic_file, clone_file, locked, storage_errors

_IN_RUNTIME = b"share/upper.ext4"
_REBUILD = "build the boot kit again: shed image bootkit build"
_RESERVE = 32 << 20
"""Bytes that must stay free beside the clone: a guest whose disk image cannot grow at all sees I/O errors at its first write."""
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


def template(templates: Path, runtime: Path) -> Path:
    """Return the empty ext4 of the EROFS blob `runtime` (named by its digest), extracting it on first use.

    Raises `DataError` when the blob carries none, `StorageError` when the disk refuses.
    """
    path = templates / f"upper-{runtime.name}.ext4"
    if path.exists():
        return path
    with locked(templates / ".lock"):
        if not path.exists():
            for left in templates.glob(".upper-*.tmp"):  # of a server that was killed while it extracted
                left.unlink()
            _extract(runtime, path)
    return path


def make_upper(source: Path, target: Path, size: int) -> None:
    """Make `target`, in a new folder, a sparse clone of the template `source` of `size` bytes.  Raises `StorageError`."""
    with storage_errors(target):
        target.parent.mkdir(mode=0o700)
        needed = source.stat().st_blocks * 512 + _RESERVE
        free = shutil.disk_usage(target.parent).free
        if free < needed:
            raise StorageError(
                f"no space for a writable layer in {target.parent.parent}: {format_size(free)} free, {format_size(needed)} needed",
                code="NO_SPACE",
                hint="free some space, for example: shed delete NAME",
            )
        with target.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            clone_file(source, file)
            file.truncate(size)
            os.fsync(file.fileno())


def has_errors(path: Path) -> bool:
    """Say whether the guest's kernel has noted in the writable layer `path` that it could not write or not understand something."""
    try:
        with path.open("rb", buffering=0) as file:
            return bool(os.pread(file.fileno(), 1, _STATE_OFFSET)[0] & _ERRORS_DETECTED)
    except (OSError, IndexError):  # whoever needs the file says what is wrong with it
        return False


def repair(path: Path) -> str:
    """Return what the user is to do about a writable layer with errors, once its shed is stopped."""
    return f"e2fsck -fy {shlex.quote(str(path))}"


def _extract(runtime: Path, path: Path) -> None:
    from shed.erofs.reader import Image  # noqa: PLC0415  needed once per runtime

    with Image.open(runtime) as image:
        try:
            inode = image.lookup(_IN_RUNTIME)
        except NotFoundError:
            raise DataError(f"the runtime blob {runtime} has no {_IN_RUNTIME.decode()}", hint=_REBUILD) from None
        with atomic_file(path, mode=0o400) as file:
            image.extract(inode, file.fileno())
            if os.pread(file.fileno(), len(_MAGIC), _MAGIC_OFFSET) != _MAGIC:
                raise DataError(f"{_IN_RUNTIME.decode()} in the runtime blob {runtime} is not ext4", hint=_REBUILD)
