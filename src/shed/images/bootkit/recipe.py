"""What the boot kit is made of: the names of its Debian packages, by purpose."""

from __future__ import annotations

from shed.images.bootkit.debs import KERNEL_META

KERNEL = KERNEL_META
SHELL = "busybox-static"
PYTHON = (
    "python3.13-minimal", "libpython3.13-minimal", "libpython3.13-stdlib",
    "libc6", "libgcc-s1", "libexpat1", "zlib1g", "libffi8",
)  # fmt: skip
"""The agent's interpreter, and the libraries that its modules use."""
MKE2FS = ("e2fsprogs", "libext2fs2t64", "libcom-err2", "libblkid1", "libuuid1", "libc6")
"""Makes the empty writable layer."""
ALL = tuple(dict.fromkeys((KERNEL, SHELL, *PYTHON, *MKE2FS)))
