"""System calls that the standard library lacks, through `_ctypes`: importing `ctypes` takes 30 times as long.

All raise `OSError`, with the path where there is one.
"""

from __future__ import annotations

import _ctypes
import fcntl
import os
import time

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_NOATIME = 1024
MS_BIND_ALL = 4096 | 16384
"""With the mounts below."""
MS_REMOUNT_BIND = 32 | 4096
MS_MOVE = 8192
_MNT_DETACH = 2
_MS_REC_PRIVATE = 16384 | (1 << 18)
"""Flags of mount(2), linux/mount.h."""
_CLONE_NEWNS, _CLONE_NEWUTS = 0x20000, 0x4000000
"""Flags of unshare(2), linux/sched.h."""
_RB_POWER_OFF, _RB_AUTOBOOT = 0x4321FEDC, 0x01234567
"""Commands of reboot(2), linux/reboot.h."""
_FIFREEZE, _FITHAW = 0xC0045877, 0xC0045878
"""ioctls, linux/fs.h."""
_BLKROSET = 0x125D
"""ioctl, linux/fs.h."""
_EXT4_IOC_RESIZE_FS = 0x40086610
"""ioctl, linux/ext4.h: grow a mounted ext4 to a number of blocks (64 bits)."""
_RNDADDENTROPY = 0x40085203
_RNDRESEEDCRNG = 0x5207
"""ioctls, linux/random.h."""


class _Int(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001
    _type_ = "i"


class _Function(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Int


_LIBC = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]  # the program itself


def _call(name: str, *arguments: bytes | int | None, path: str | None = None) -> None:
    """Call a function of libc that returns -1 and sets errno when it fails."""
    result = _Function(_ctypes.dlsym(_LIBC, name))(*arguments)
    if result == -1:
        error = _ctypes.get_errno()
        raise OSError(error, os.strerror(error), path)


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """Mount a file system."""
    _call(
        "mount",
        os.fsencode(source),
        os.fsencode(target),
        os.fsencode(kind),
        flags,
        os.fsencode(options) or None,
        path=target,
    )


def unmount(target: str, *, force: bool) -> None:
    """Unmount what is at `target`; with `force`, also when it is in use."""
    _call("umount2", os.fsencode(target), _MNT_DETACH if force else 0, path=target)


def move_mount(source: str, target: str) -> None:
    """Move what is mounted at `source` to `target`."""
    _call("mount", os.fsencode(source), os.fsencode(target), None, MS_MOVE, None, path=target)


def leave_mounts() -> None:
    """Have mounts and a host name of our own, which end with this process."""
    _call("unshare", _CLONE_NEWNS | _CLONE_NEWUTS)
    _call("mount", None, b"/", None, _MS_REC_PRIVATE, None, path="/")


def power_off() -> None:
    """Switch the machine off now, without syncing."""
    _call("reboot", _RB_POWER_OFF)


def reboot() -> None:
    """Restart the machine now, without syncing."""
    _call("reboot", _RB_AUTOBOOT)


def freeze(fd: int) -> None:
    """Write everything a file system holds, empty its journal, and stop all writing to it."""
    fcntl.ioctl(fd, _FIFREEZE, 0)


def thaw(fd: int) -> None:
    """Have a file system that `freeze` stopped be written to again."""
    fcntl.ioctl(fd, _FITHAW, 0)


def set_read_only(fd: int) -> None:
    """Have the kernel refuse writes to the disk `fd`."""
    fcntl.ioctl(fd, _BLKROSET, (1).to_bytes(4, "little"))


def grow_ext4(fd: int, blocks: int) -> None:
    """Grow the mounted ext4 that the folder `fd` is on to `blocks` blocks."""
    fcntl.ioctl(fd, _EXT4_IOC_RESIZE_FS, blocks.to_bytes(8, "little"))


def add_entropy(seed: bytes) -> None:
    """Mix `seed` into the kernel's random numbers, count it as random, and have them start anew from it."""
    fd = os.open("/dev/urandom", os.O_WRONLY | os.O_CLOEXEC)
    try:
        header = (len(seed) * 8).to_bytes(4, "little") + len(seed).to_bytes(4, "little")
        fcntl.ioctl(fd, _RNDADDENTROPY, header + seed)
        fcntl.ioctl(fd, _RNDRESEEDCRNG)
    finally:
        os.close(fd)


def set_clock(seconds: object) -> None:
    """Set the wall clock.  Raises `ValueError` for a time that cannot be now."""
    if not isinstance(seconds, (int, float)) or not 1_600_000_000 < seconds < 4_102_444_800:
        raise ValueError(f"clock: {seconds!r} is not a time in this century")
    time.clock_settime(time.CLOCK_REALTIME, seconds)
