"""How much files take up: as long as they are, and on the disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


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


def _below(path: Path) -> Iterable[Path]:
    for folder, folders_in, files in os.walk(path):
        for name in (*folders_in, *files):
            yield Path(folder, name)


def space_of(status: os.stat_result) -> Space:
    """Return what the file of this `status` takes up."""
    return Space(status.st_size, status.st_blocks * 512)
