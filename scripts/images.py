"""Makes the images base, extensions and full, and mints them into your store: ``images.py [NAME...]``.

Archives are kept in ``.cache/images``, named by the recipes and the code that they were made with; a second run makes
nothing again. Remove that folder to have the newest packages.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import shed
from shed.config.images import VARIANTS
from shed.images.recipe import find_recipe

HERE = Path(__file__).resolve().parents[1]
SHED = Path(sys.executable).with_name("shed")
ARCHIVES = HERE / ".cache/images"
_PACKAGE = Path(shed.__file__).parent
CODE = (
    _PACKAGE / "images/recipe.py",
    _PACKAGE / "images/recipe-clean",
    *sorted(_PACKAGE.joinpath("oci").glob("*.py")),
)


def run(*command: str | Path) -> None:
    """Run one command, shown as a user would type it.  A failure ends the script with its exit code."""
    print(
        f"\n  $ {' '.join(str(word).removeprefix(f'{SHED.parent}/').removeprefix(f'{HERE}/') for word in command)}",
        flush=True,
    )
    if status := subprocess.run([str(word) for word in command], check=False).returncode:
        sys.exit(status)


def main(*wanted: str) -> None:
    """Make what is missing of the images `wanted`, or of all."""
    ARCHIVES.mkdir(parents=True, exist_ok=True)
    run(SHED, "image", "bootkit", "build")
    key = hashlib.sha256(b"".join(path.read_bytes() for path in CODE))
    below: list[str | Path] = []
    for name in VARIANTS[: max((VARIANTS.index(one) + 1 for one in wanted), default=None)]:
        for path in sorted(find_recipe(name).iterdir()):
            key.update(f"{name}/{path.name}\0".encode() + path.read_bytes())
        archive = ARCHIVES / f"{name}-{key.hexdigest()[:16]}.oci.tar"
        if not archive.exists():
            run(SHED, "image", "make", name, "--output", archive, *below)
            for old in set(ARCHIVES.glob(f"{name}-*.oci.tar")) - {archive}:
                old.unlink()
        if not wanted or name in wanted:
            run(SHED, "image", "build", "--from-oci-archive", archive, "-n", name)
        below = ["--on", archive]


if __name__ == "__main__":
    main(*sys.argv[1:])
