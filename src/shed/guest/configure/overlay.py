"""The new root: the image's root below, the upper above; then the machine moves into it."""

from __future__ import annotations

import os

from shed.guest import syscalls
from shed.guest.configure import steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.guest.configure.steps import Places

_MOVED = ("proc", "sys", "dev")
_MOUNTED = (
    # (kind, where, flags, options)
    ("devpts", "/dev/pts", syscalls.MS_NOSUID | syscalls.MS_NOEXEC, "gid=5,mode=620,ptmxmode=666"),
    ("tmpfs", "/dev/shm", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=1777"),  # noqa: S108
    ("cgroup2", "/sys/fs/cgroup", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC, ""),
)
_TMP = "/tmp"  # noqa: S108  a machine's own
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}


def mount_overlay(places: Places) -> None:
    """Mount the overlay as the new root.  Raises `StepError`."""
    data, work = f"{places.upper}/data", f"{places.upper}/work"
    try:
        if steps.make_folder(data):
            root = os.stat(places.lower)
            os.chmod(data, root.st_mode & 0o7777)
            os.chown(data, root.st_uid, root.st_gid)
        steps.remove_tree(work)  # what a start that was cut off left there would make the mount fail
        steps.make_folder(work)
        steps.make_folder(places.newroot)
        options = f"lowerdir={places.lower},upperdir={data},workdir={work},redirect_dir=on"
        syscalls.mount("shed", places.newroot, "overlay", 0, options)
    except OSError as error:
        raise steps.StepError(steps.OVERLAY, f"cannot put the upper over the image's root: {error.strerror}") from None


def mount_devices(places: Places) -> None:
    """Mount what belongs below /dev and /sys, and goes with them into the new root.  Raises `StepError`."""
    try:
        for kind, where, flags, options in _MOUNTED:
            steps.make_folder(where)
            syscalls.mount(kind, where, kind, flags, options)
        for name, target in _DEVICE_LINKS.items():
            if not os.path.lexists(f"/dev/{name}"):
                os.symlink(target, f"/dev/{name}")
        for path in places.initramfs:  # gives memory back
            steps.remove_tree(path)
    except OSError as error:
        raise steps.StepError(steps.HAND_OVER, f"cannot prepare /dev and /sys: {error}") from None


def enter(places: Places) -> None:
    """Take /proc, /sys, /dev and the runtime along, and make the new root the root.  Raises `StepError`."""
    root = places.newroot
    try:
        for name in _MOVED:
            if os.path.islink(f"{root}/{name}"):
                raise steps.StepError(steps.HAND_OVER, f"/{name} in the image is a link, a folder is needed")
            steps.make_folder(f"{root}/{name}")
        if os.path.islink(f"{root}/run"):
            os.unlink(f"{root}/run")
        steps.make_folder(f"{root}/run")
        run_of_image = os.readlink(f"{places.lower}/run") if os.path.islink(f"{places.lower}/run") else ""
        syscalls.mount("run", f"{root}/run", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=755")
        os.mkdir(f"{root}/run/shed-runtime")
        syscalls.move_mount(places.runtime, f"{root}/run/shed-runtime")
        for name in _MOVED:
            syscalls.move_mount(f"/{name}", f"{root}/{name}")
        os.chdir(root)
        syscalls.move_mount(".", "/")
        os.chroot(".")
        os.chdir("/")
        _make_tmp()
        if run_of_image:
            _share_run(f"/{run_of_image}")
    except OSError as error:
        raise steps.StepError(steps.HAND_OVER, f"cannot move into the new root: {error}") from None


def _make_tmp() -> None:
    """Make /tmp, or what it leads to: some images have a link there."""
    place = os.path.realpath(_TMP)
    if not os.path.lexists(place):
        steps.make_folder(place, 0o1777)


def _share_run(place: str) -> None:
    """Show /run, which is a link to `place` in the image, there too.  Programs go both ways."""
    if steps.is_folder(place) and not os.path.samefile(place, "/run"):
        syscalls.mount("/run", place, "", syscalls.MS_BIND_ALL)
