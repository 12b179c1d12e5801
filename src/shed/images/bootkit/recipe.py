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
HELPERS = {
    "sftp-server": ("openssh-sftp-server", "usr/lib/openssh/sftp-server"),
    "scp": ("openssh-client", "usr/bin/scp"),
}
"""Programs for images that lack them, by name: package and path in it.  They need no library but the C library."""
ALL = tuple(dict.fromkeys((KERNEL, SHELL, *PYTHON, *MKE2FS, *(package for package, _ in HELPERS.values()))))
