"""What a folder shows of which file systems: by bind mounts, several paths lead to the same.

Source: proc_pid_mountinfo(5).
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from shed.linux import plain

_ESCAPED = re.compile(rb"\\([0-7]{3})")


class Part(NamedTuple):
    """A folder of a file system, and all in it."""

    device: bytes
    path: bytes
    """From the root of the file system; ends with a slash."""


class _Mount(NamedTuple):
    part: Part
    place: bytes
    """Where it is mounted; ends with a slash."""


class Mounts:
    """What is mounted at one moment, as this process sees it."""

    def __init__(self) -> None:
        """Raises `OSError`."""
        self._mounts: dict[bytes, _Mount] = {}
        for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
            number, _, device, root, place = line.split(b" ", 5)[:5]
            self._mounts[number] = _Mount(Part(device, _path(root)), _path(place))

    def parts(self, folder: str) -> list[Part]:
        """Return what the `folder` shows, a path without links: itself, and what is mounted below it.

        Raises `OSError`.
        """
        opened = plain.open_folder(folder)
        try:
            words = Path(f"/proc/self/fdinfo/{opened}").read_bytes().split()
        finally:
            os.close(opened)
        mount = self._mounts.get(words[words.index(b"mnt_id:") + 1])
        path = _path(os.fsencode(folder))
        if mount is None or not path.startswith(mount.place):
            raise OSError(errno.EBUSY, "it cannot be told what is mounted there", folder)
        own = Part(mount.part.device, mount.part.path + path.removeprefix(mount.place))
        return [own, *(one.part for one in self._mounts.values() if one.place.startswith(path) and one.place != path)]


def overlap(some: Iterable[Part], others: Iterable[Part]) -> bool:
    """Tell whether something is in both."""
    return any(
        one.device == other.device and (one.path.startswith(other.path) or other.path.startswith(one.path))
        for other in others
        for one in some
    )


def _path(text: bytes) -> bytes:
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), text).rstrip(b"/") + b"/"
