"""``python -m shed.images.bootkit.pin``: pins the newest packages of the suite in the lock file."""

from __future__ import annotations

import sys

from shed.errors import ShedError
from shed.images.bootkit import recipe
from shed.images.bootkit.archive import Archive
from shed.images.bootkit.debs import LOCK_FILE, newest, write_lock


def main() -> int:
    """Write the lock file; return an exit status."""
    archive = Archive()
    try:
        packages = {name: newest(name, archive) for name in recipe.ALL}
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
