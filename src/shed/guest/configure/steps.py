"""The numbered failures of a start, the same on the console and in the answer, and the files of a start."""

from __future__ import annotations

import os

ROOT_MISSING = "SHED-INIT-02"
ROOT_MOUNT = "SHED-INIT-03"
OVERLAY = "SHED-INIT-04"
UPPER_MISSING = "SHED-INIT-05"
UPPER_CORRUPT = "SHED-INIT-06"
UPPER_GROW = "SHED-INIT-07"
"""In the reference: making a file system.  Nothing is ever made here, but it is grown to its size."""
UPPER_MOUNT = "SHED-INIT-08"
HAND_OVER = "SHED-INIT-09"
SHARE_MOUNT = "SHED-INIT-10"


class StepError(Exception):
    """A step of the start failed for good; `code` is one of the numbers above."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Places:
    """Where a start finds and puts things; tests use others than a machine does."""

    def __init__(self, base: str = "", dev: str = "/dev") -> None:
        self.upper_device = f"{dev}/vda"
        self.root_device = f"{dev}/vdb"
        self.own_disks = (self.upper_device, self.root_device)
        self.modules = f"{base}/modules"
        self.initramfs = (self.modules, f"{base}/bin/busybox", f"{base}/init")
        self.upper = f"{base}/upper"
        self.lower = f"{base}/lower"
        self.newroot = f"{base}/newroot"
        self.runtime = f"{base}/run/shed-runtime"


def make_folder(path: str, mode: int = 0o755) -> bool:
    """Make a folder and those above it; return False when it was there."""
    try:
        os.mkdir(path)
    except FileExistsError:
        return False
    except FileNotFoundError:
        make_folder(path.rpartition("/")[0])
        os.mkdir(path)
    os.chmod(path, mode)  # whatever the umask is
    return True


def remove_tree(path: str) -> None:
    """Remove whatever `path` is, with all that is in it; fine when there is nothing."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        for name in os.listdir(path):
            remove_tree(f"{path}/{name}")
        os.rmdir(path)


def write_file(path: str, content: str | bytes) -> None:
    """Write a small file, in place of whatever was there, a link too."""
    temporary = f"{path}.shed-new"
    with open(temporary, "wb") as file:
        file.write(content.encode(errors="surrogateescape") if isinstance(content, str) else content)
    os.replace(temporary, path)


def write_value(path: str, value: str) -> None:
    """Write to a file of the kernel's, in one piece.  Raises `OSError`."""
    with open(path, "wb", buffering=0) as file:
        file.write(value.encode())


def is_folder(path: str) -> bool:
    """Tell whether there is a folder, or a link to one."""
    try:
        return os.stat(path).st_mode & 0o170000 == 0o040000
    except OSError:
        return False


def read_file(path: str) -> str:
    """Return what a small file holds; empty when there is none."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read().decode(errors="surrogateescape")
    except OSError:
        return ""
