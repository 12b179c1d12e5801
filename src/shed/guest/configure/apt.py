"""The host's settings for apt, in images that have one."""

from __future__ import annotations

import os

from shed.guest.configure import steps

_FOLDER = "etc/apt/apt.conf.d"
_FILE = f"{_FOLDER}/90shed-host"


def set_up(lines: str, root: str = "") -> None:
    """Have apt read `lines`, and no longer those of an earlier start.  Raises `OSError`."""
    path = f"{root}/{_FILE}"
    if not lines:
        if os.path.lexists(path):
            os.unlink(path)
    elif steps.is_folder(f"{root}/{_FOLDER}") and steps.read_file(path) != lines:
        steps.write_file(path, lines)
