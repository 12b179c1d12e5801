"""Kernel mounts of images, for tests that run as root."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from shed.run import run


@contextlib.contextmanager
def erofs_mount(image: Path, folder: Path) -> Iterator[Path]:
    """Mount `image` read-only on a loop device, on a new folder `folder`, and undo it at the end."""
    folder.mkdir()
    run(["mount", "-t", "erofs", "-o", "ro,loop", image, folder])
    try:
        yield folder
    finally:
        run(["umount", folder])
        folder.rmdir()
