"""The workspace, and the host's folders in the guest, over 9P."""

from __future__ import annotations

import os
import time

from shed.guest import syscalls
from shed.guest.configure import steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.guest.configure.request import Mount
    from shed.guest.users import User

_OPTIONS = "trans=virtio,version=9p2000.L,cache=mmap,directio,access=client,msize=512000"
"""Reading and writing cache nothing, so that either side sees the other's edits at once; what is mapped into memory for
writing is (``cache=none`` refuses that).  512000 is about the most that virtio carries in one piece.
"""
_ATTEMPTS = 3


def mount_share(mount: Mount) -> None:
    """Mount a host folder.  Its owners are the host's business: nothing is ever changed after mounting.

    Raises `StepError`.
    """
    try:
        steps.make_folder(mount.target)
    except OSError as error:
        raise steps.StepError(steps.SHARE_MOUNT, f"cannot make {mount.target}: {error.strerror}") from None
    flags = syscalls.MS_NODEV | (syscalls.MS_RDONLY if mount.readonly else 0)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            syscalls.mount(mount.tag, mount.target, "9p", flags, _OPTIONS)
            os.stat(mount.target)
        except OSError as error:
            if attempt == _ATTEMPTS:
                raise steps.StepError(
                    steps.SHARE_MOUNT,
                    f"cannot mount the host's folder {mount.tag!r} at {mount.target}: {error.strerror}",
                ) from None
            time.sleep(0.05)
        else:
            return


def make_workspace(folder: str, mounts: list[Mount], user: User) -> None:
    """Make the workspace, the user's own, unless the image has it or the host's folder is mounted there.

    Raises `OSError`.
    """
    if all(mount.target != folder for mount in mounts) and steps.make_folder(folder):
        os.chown(folder, user.uid, user.gid)
