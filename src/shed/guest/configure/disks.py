"""The shed's two disks: the writable upper, checked and grown, and the image's read-only root."""

from __future__ import annotations

import os
import time

from shed.guest import syscalls
from shed.guest.configure import steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.guest.configure.steps import Places

_OPTIONS = "discard"
"""What is deleted goes back to the host with the next commit of the journal: nothing else would tell it."""
_DEVICE_SECONDS = 5.0
_MODULES_LOOKS, _BETWEEN_LOOKS = 12_000, 0.005
"""A minute at least.  It is no time because a guest's clock runs on while its processor waits for a busy host."""
_SIZE_SECONDS, _BETWEEN_SIZES = 5.0, 0.002
_SECTOR = 512
_SUPERBLOCK = 1024
"""Where ext4's superblock is, in bytes; offsets below are within it (Linux:
Documentation/filesystems/ext4/super.rst).
"""
_BLOCKS_LOW, _BLOCK_SIZE, _MAGIC, _BLOCKS_HIGH = 0x04, 0x18, 0x38, 0x150


def await_modules(folder: str) -> None:
    """Wait until the init script has loaded the modules that the rest needs.

    One that failed is on the console, and its mount will fail.
    """
    for _ in range(_MODULES_LOOKS):
        if os.path.exists(f"{folder}/loaded"):
            return
        time.sleep(_BETWEEN_LOOKS)
    raise steps.StepError(steps.ROOT_MOUNT, "the kernel's modules are not loaded yet: this machine is too slow")


def await_sizes(places: Places, sizes: list[int]) -> None:
    """Wait until the kernel knows that the disks have `sizes`, in bytes.  Raises `StepError`."""
    deadline = time.monotonic() + _SIZE_SECONDS
    for device, size in zip(places.own_disks, sizes, strict=False):
        name = os.path.basename(device)
        while int(steps.read_file(f"/sys/block/{name}/size") or 0) * _SECTOR != size:
            if time.monotonic() > deadline:
                raise steps.StepError(
                    steps.UPPER_MISSING, f"the kernel does not see that {device} has {size} bytes now"
                )
            time.sleep(_BETWEEN_SIZES)


def mount_upper(places: Places) -> int:
    """Mount the upper, grown to the size of its disk, and return its root folder, open.  Raises `StepError`."""
    size, superblock = _look_at(places.upper_device, steps.UPPER_MISSING, "the upper disk")
    if superblock[_MAGIC : _MAGIC + 2] != b"\x53\xef":
        raise steps.StepError(
            steps.UPPER_CORRUPT, f"the upper disk {places.upper_device} holds no ext4 file system; it was left as it is"
        )
    steps.make_folder(places.upper)
    try:
        syscalls.mount(places.upper_device, places.upper, "ext4", syscalls.MS_NOATIME, _OPTIONS)
    except OSError as error:
        raise steps.StepError(steps.UPPER_MOUNT, f"cannot mount the upper disk: {error.strerror}") from None
    folder = os.open(places.upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    block_size = 1024 << _number(superblock, _BLOCK_SIZE)
    blocks = _number(superblock, _BLOCKS_LOW) | _number(superblock, _BLOCKS_HIGH) << 32
    if size // block_size > blocks:
        try:
            syscalls.grow_ext4(folder, size // block_size)
        except OSError as error:
            os.close(folder)
            raise steps.StepError(
                steps.UPPER_GROW, f"cannot grow the upper to {size} bytes: {error.strerror}"
            ) from None
    return folder


def mount_root(places: Places) -> None:
    """Mount the image's root.  Raises `StepError`."""
    _look_at(places.root_device, steps.ROOT_MISSING, "the image's root disk")
    steps.make_folder(places.lower)
    try:
        syscalls.mount(places.root_device, places.lower, "erofs", syscalls.MS_RDONLY)
        os.listdir(places.lower)
    except OSError as error:
        raise steps.StepError(
            steps.ROOT_MOUNT,
            f"cannot mount the image's root {places.root_device}: {error.strerror}; the image does not fit this kernel",
        ) from None


def _look_at(device: str, missing: str, what: str) -> tuple[int, bytes]:
    """Return a disk's size in bytes and its superblock, once it is there."""
    deadline = time.monotonic() + _DEVICE_SECONDS
    while True:
        try:
            fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if time.monotonic() > deadline:
                raise steps.StepError(missing, f"{what} {device} is not there: {error.strerror}") from None
            time.sleep(0.01)
            continue
        try:
            return os.lseek(fd, 0, os.SEEK_END), os.pread(fd, 1024, _SUPERBLOCK)
        except OSError as error:
            raise steps.StepError(missing, f"{what} {device} cannot be read: {error.strerror}") from None
        finally:
            os.close(fd)


def _number(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "little")
