"""What may be taken of a disk: so much for one image, and never the last free space of the file system.

Images come from outside: a registry, an archive or a builder may send without end.  Whoever writes what they send asks
here first.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

from shed.errors import DataError, StorageError
from shed.fsutil import storage_errors
from shed.sizes import GIB, format_size

MAX_IMAGE = 32 * GIB
"""Most bytes that are fetched for one image, unless the configuration says otherwise."""
MOST_RESERVE, RESERVE_PART = GIB, 0.05
"""What stays free unless the configuration says otherwise: this part of the file system, and so many bytes at most."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What images may take."""

    max_image_size: int = MAX_IMAGE
    """Most bytes that are fetched for one image."""
    disk_reserve: int | None = None
    """Bytes of the file system that stay free; None: `RESERVE_PART` of it, `MOST_RESERVE` at most."""
    private_hosts: tuple[str, ...] = ()
    """Hosts with private addresses that a registry elsewhere may lead to."""


DEFAULT_LIMITS = Limits()


class Reserve:
    """The space that stays free on the file system of `folder`, which need not be there yet; usable by several threads.

    `setting` is what it is configured by.
    """

    def __init__(self, folder: Path, size: int | None = None, *, setting: str = "limits.disk_reserve") -> None:
        self._folder = folder
        self._size = size
        self._setting = setting

    def check(self, coming: int = 0) -> None:
        """Raise `StorageError` (DISK_RESERVE) unless the reserve is still free when `coming` bytes more have been written."""
        with storage_errors(self._folder):
            disk = os.statvfs(_existing(self._folder))
        free = disk.f_bavail * disk.f_frsize
        kept = self._size
        if kept is None:
            kept = min(int(RESERVE_PART * disk.f_blocks * disk.f_frsize), MOST_RESERVE)
        if free - coming < kept:
            wanted = f"{format_size(coming)} needed, " if coming else ""
            raise StorageError(
                f"too little space at {self._folder}: {wanted}{format_size(free)} free, and {format_size(kept)} must stay free",
                code="DISK_RESERVE",
                hint=f"free some: shed system prune; or set {self._setting} in server.yaml",
            )


class Budget:
    """Bytes that may still be written, `total` at first, and as long as the `reserve` stays free.

    Shared by the threads of one image.

    `what` begins the sentence that refuses more; `hint` says what to do then.
    """

    def __init__(
        self,
        total: int,
        *,
        reserve: Reserve | None = None,
        what: str = "the image unpacks to",
        hint: str = "if that is no mistake, make the image smaller",
    ) -> None:
        self._total = total
        self._left = total
        self._reserve = reserve
        self._what = what
        self._hint = hint
        self._lock = threading.Lock()

    def expect(self, size: int, *, here: int = 0) -> None:
        """Refuse `size` bytes more, of which `here` are on the disk, before the next one comes.

        Raises as `spend`, and takes nothing.
        """
        if size > self._left:
            raise self._spent(f"{self._what} {format_size(size)}; at most {format_size(self._total)} are allowed")
        if self._reserve is not None:
            self._reserve.check(max(0, size - here))

    def spend(self, count: int, *, stored: bool = True) -> None:
        """Take `count` bytes, which are about to be written; not `stored`, they become a hole.

        Raises `DataError` (IMAGE_TOO_LARGE) when there are not as many left, and `StorageError` (DISK_RESERVE).
        """
        with self._lock:
            self._left -= count
            if self._left < 0:
                raise self._spent(f"{self._what} more than {format_size(self._total)}")
        if stored and self._reserve is not None:
            self._reserve.check(count)

    def _spent(self, message: str) -> DataError:
        return DataError(message, code="IMAGE_TOO_LARGE", hint=self._hint)


def _existing(folder: Path) -> Path:
    """Return `folder`, or the nearest one above it that is there."""
    folder = folder.absolute()
    return next((place for place in (folder, *folder.parents) if place.exists()), folder)
