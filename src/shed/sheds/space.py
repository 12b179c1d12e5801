"""How much files take up: as long as they are, and on the disk."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from shed.linux.fiemap import shared_extents

Extent = tuple[int, int]
"""Where something is on a disk, and its length, in bytes."""


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes of files, and bytes on the disk."""

    size: int = 0
    disk: int = 0

    def __add__(self, other: Space) -> Space:
        return Space(self.size + other.size, self.disk + other.disk)

    def to_wire(self) -> dict[str, int]:
        """Return it as the API shows it."""
        return {"size_bytes": self.size, "disk_bytes": self.disk}


NOTHING = Space()


def measure(*paths: Path) -> Space:
    """Return what these files and folders, with all that is in them, take up; what is not there takes nothing."""
    seen: set[tuple[int, int]] = set()
    total = Space()
    for path in paths:
        for each in (path, *_below(path)):
            with contextlib.suppress(OSError):
                status = each.lstat()
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    total += space_of(status) if not each.is_dir() else Space(0, status.st_blocks * 512)
    return total


def extents_of(*paths: Path) -> list[Extent]:
    """Return what these files, and all in these folders, share with clones; nothing where the file system says nothing.

    What is compressed counts in full.
    """
    found: list[Extent] = []
    for path in paths:
        for each in (path, *_below(path)):
            with contextlib.suppress(OSError):
                file = os.open(each, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    if stat.S_ISREG(os.fstat(file).st_mode):
                        found += shared_extents(file)
                finally:
                    os.close(file)
    return found


def counted_twice(extents: Iterable[Extent]) -> int:
    """Return the bytes by which `extents` are longer together than the disk under them."""
    twice = end = 0
    for start, length in sorted(extents):
        twice += max(min(end - start, length), 0)
        end = max(end, start + length)
    return twice


def _below(path: Path) -> Iterable[Path]:
    for folder, folders_in, files in os.walk(path):
        for name in (*folders_in, *files):
            yield Path(folder, name)


def space_of(status: os.stat_result) -> Space:
    """Return what the file of this `status` takes up."""
    return Space(status.st_size, status.st_blocks * 512)
