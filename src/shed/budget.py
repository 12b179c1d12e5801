"""Limits of disk use: so many bytes for one image, and some space of the file system that always stays free.

Images come from outside: a registry, an archive or a builder may send without end.  All code that writes what they send
asks here first.
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
"""What stays free unless the configuration says otherwise: this part of the file system, but at most so many bytes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an image may use."""

    max_image_size: int = MAX_IMAGE
    """Most bytes that are fetched for one image."""
    disk_reserve: int | None = None
    """Bytes of the file system that stay free; None: `RESERVE_PART` of it, at most `MOST_RESERVE`."""
    private_hosts: tuple[str, ...] = ()
    """Hosts with private addresses to which a registry elsewhere may redirect or refer."""


DEFAULT_LIMITS = Limits()


class Reserve:
    """The space that stays free on the file system of `folder`, which need not exist yet.

    `setting` is the key of the configuration that sets it.  Several threads may use it.
    """

    def __init__(self, folder: Path, size: int | None = None, *, setting: str = "limits.disk_reserve") -> None:
        self._folder = folder
        self._size = size
        self._setting = setting

    def check(self, coming: int = 0) -> None:
        """Raise `StorageError` (DISK_RESERVE) unless the reserve stays free after `coming` more bytes are written."""
        with storage_errors(self._folder):
            disk = os.statvfs(_existing(self._folder))
        free = disk.f_bavail * disk.f_frsize
        kept = self._size
        if kept is None:
            kept = min(int(RESERVE_PART * disk.f_blocks * disk.f_frsize), MOST_RESERVE)
        if free - coming < kept:
            wanted = f"{format_size(coming)} needed, " if coming else ""
            raise StorageError(
                f"too little space at {self._folder}: {wanted}{format_size(free)} free, "
                f"and {format_size(kept)} must stay free",
                code="DISK_RESERVE",
                hint=f"free some: shed system prune; or set {self._setting} in server.yaml",
            )


class Budget:
    """Bytes that may still be written for one image: `total` in all, as long as the `reserve` stays free.

    `what` begins the sentence that refuses more, and `hint` says what to do then.  Several threads may use it.
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
        """Check that `size` more bytes may be written, before they come; `here` of them are on the disk already.

        Raises as `spend` does.  The budget does not change.
        """
        if size > self._left:
            raise self._spent(f"{self._what} {format_size(size)}; at most {format_size(self._total)} are allowed")
        if self._reserve is not None:
            self._reserve.check(max(0, size - here))

    def spend(self, count: int, *, stored: bool = True) -> None:
        """Take `count` bytes, which are about to be written, from the budget.

        Without `stored` they will be a hole, which needs no space.  Raises `DataError` (IMAGE_TOO_LARGE) when fewer
        bytes are left, and `StorageError` (DISK_RESERVE).
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
    """Return `folder`, or the nearest parent that exists."""
    folder = folder.absolute()
    return next((place for place in (folder, *folder.parents) if place.exists()), folder)
