"""What the boot kit is made of: the names of its Debian packages, by purpose.

``python -m shed.images.bootkit.packages`` pins the newest of them in the suite in the lock file.
"""

from __future__ import annotations

import sys

from shed.errors import ShedError
from shed.images.bootkit.debian_archive import DebianArchive
from shed.images.bootkit.debs import KERNEL_META, LOCK_FILE, newest, write_lock

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


def main() -> int:
    """Write the lock file; return an exit status."""
    archive = DebianArchive()
    try:
        packages = {name: newest(name, archive) for name in ALL}
        released = archive.released()
    except ShedError as error:
        sys.stderr.write(f"pin: {error}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return error.exit_code
    write_lock(packages, archive, released=released)
    sys.stdout.writelines(f"{package.name} {package.version}\n" for package in packages.values())
    sys.stdout.write(f"written to {LOCK_FILE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
