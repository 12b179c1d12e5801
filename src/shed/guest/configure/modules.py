"""Kernel modules that are loaded when they are used.

The kernel is told which program to ask, and device nodes exist so that they can be opened.
"""

from __future__ import annotations

import os
import stat

from shed.guest.configure import steps

_HELPER = "/proc/sys/kernel/modprobe"
_MODPROBE = "/run/shed-runtime/bin/modprobe"
_DEVICES = {"net/tun": (10, 200, 0o666), "fuse": (10, 229, 0o666), "loop-control": (10, 237, 0o600)}
"""Number and mode, as udev sets it; opening one of these loads its module (Linux:
Documentation/admin-guide/devices.txt).
"""


def load_on_demand(dev: str = "/dev", helper: str = _HELPER) -> None:
    """Have the kernel load what it wants from the runtime.  Raises `OSError`."""
    steps.write_value(helper, _MODPROBE)
    steps.make_folder(f"{dev}/net")
    for name, (major, minor, mode) in _DEVICES.items():
        path = f"{dev}/{name}"
        if not os.path.exists(path):
            os.mknod(path, stat.S_IFCHR, os.makedev(major, minor))
        os.chmod(path, mode)
