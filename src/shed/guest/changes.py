"""What a shed has changed of its image: the layer above its root, beside the root itself.

An overlay keeps what was written in a folder of its own, the upper: a file that was changed is there as a whole, one
that was deleted as a device 0:0.  Both file systems are mounted once more for this program alone, which reads them.

Source: kernel, Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import os
import stat

from shed.guest import syscalls, wirejson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Tell = Callable[[str, str], object]

_UPPER, _ROOT = "/dev/vda", "/dev/vdb"
_OPAQUE, _REDIRECT = "trusted.overlay.opaque", "trusted.overlay.redirect"


def compare(upper: str, root: str, tell: Tell) -> None:
    """Tell what is other in the folder `upper` of an overlay than in `root`, its lower one, in the order of names.

    `tell` gets ``A`` (added), ``M`` (changed) or ``D`` (deleted), and a path that begins with a slash.  What is in a
    folder that was added or deleted is not told: the folder stands for it.  Raises `OSError`.
    """
    ahead = [("", root)]
    while ahead:
        path, below = ahead.pop()
        folders: list[tuple[str, str]] = []
        names = set()
        with os.scandir(upper + (path or "/")) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                names.add(entry.name)
                status, name = entry.stat(follow_symlinks=False), f"{path}/{entry.name}"
                before = _status(f"{below}/{entry.name}")
                if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                    if before is not None:
                        tell("D", name)
                elif before is None or _is_moved(entry.path):
                    tell("A" if before is None else "M", name)
                elif not (stat.S_ISDIR(status.st_mode) and stat.S_ISDIR(before.st_mode)):
                    tell("M", name)
                else:
                    if _rights(status) != _rights(before):
                        tell("M", name)
                    folders.append((name, f"{below}/{entry.name}"))
        if path and _xattr(upper + path, _OPAQUE) == b"y":
            for name in sorted(set(os.listdir(below)) - names):
                tell("D", f"{path}/{name}")
        ahead += reversed(folders)


def _is_moved(path: str) -> bool:
    """Tell whether it is a folder that was another one of the image, which has its name there."""
    return bool(_xattr(path, _REDIRECT))


def _status(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _rights(status: os.stat_result) -> tuple[int, int, int]:
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


def _xattr(path: str, name: str) -> bytes:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError:  # it has none
        return b""


def main(words: list[str]) -> int:
    """Print what has changed, as root: a letter, a path and a NUL for each.  `words`: none.

    What goes wrong goes to standard error, as of `shed.guest.archive`.
    """
    try:
        syscalls.leave_mounts()
        place = "/run/shed-changes"
        os.makedirs(place, exist_ok=True)
        syscalls.mount("changes", place, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=700")
        for name, device, kind, flags in (
            ("upper", _UPPER, "ext4", syscalls.MS_NOATIME),  # as it is mounted already: it is the same one
            ("root", _ROOT, "erofs", syscalls.MS_RDONLY),
        ):
            os.mkdir(f"{place}/{name}")
            syscalls.mount(device, f"{place}/{name}", kind, flags)
        with open(1, "wb", closefd=False) as out:
            compare(
                f"{place}/upper/data", f"{place}/root", lambda kind, path: out.write(os.fsencode(kind + path) + b"\0")
            )
    except BrokenPipeError:  # nobody takes it any more
        return 1
    except OSError as error:
        os.write(2, wirejson.dumps({"error": f"{error.filename or 'the disks'}: {error.strerror}"}) + b"\n")
        return 1
    return 0
