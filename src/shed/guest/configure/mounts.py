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
_PRIVATE, _ALL = "/run/shed-mounts", "/run/shed-mounts/all"
"""Where that is which has all folders but the workspace."""
_ENOENT, _EBUSY, _EINVAL = 2, 16, 22


def mount_share(mount: Mount) -> None:
    """Mount a host folder.  Its owners are the host's business: nothing is ever changed after mounting.

    Raises `StepError`.
    """
    try:
        steps.make_folder(mount.target)
    except OSError as error:
        raise steps.StepError(steps.SHARE_MOUNT, f"cannot make {mount.target}: {error.strerror}") from None
    flags = syscalls.MS_NODEV | (syscalls.MS_RDONLY if mount.readonly else 0)
    if not mount.source:
        _mount_tag(mount.tag, mount.target, flags)
        return
    if not os.path.ismount(_ALL):
        steps.make_folder(_PRIVATE, 0o700)
        steps.make_folder(_ALL)
        _mount_tag(mount.tag, _ALL, syscalls.MS_NODEV)
    try:
        syscalls.mount(f"{_ALL}/{mount.source}", mount.target, "", syscalls.MS_BIND_ALL)
        syscalls.mount("", mount.target, "", syscalls.MS_REMOUNT_BIND | flags)
    except OSError as error:
        raise steps.StepError(
            steps.SHARE_MOUNT, f"cannot mount the host's folder at {mount.target}: {error.strerror}"
        ) from None


def unmount_share(target: str, *, force: bool, last: bool) -> bool:
    """Unmount a host folder; with `force`, also one that is in use.  With the `last` one all go.

    Return False when it is in use.  Raises `OSError`.
    """
    try:
        syscalls.unmount(target, force=force)
    except OSError as error:
        if error.errno == _EBUSY:
            return False
        if error.errno not in {_EINVAL, _ENOENT}:  # the guest has unmounted it itself
            raise
    if last and os.path.ismount(_ALL):
        syscalls.unmount(_ALL, force=True)
    return True


def _mount_tag(tag: str, target: str, flags: int) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            syscalls.mount(tag, target, "9p", flags, _OPTIONS)
            os.stat(target)
        except OSError as error:
            if attempt == _ATTEMPTS:
                raise steps.StepError(
                    steps.SHARE_MOUNT, f"cannot mount the host's folder {tag!r} at {target}: {error.strerror}"
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
