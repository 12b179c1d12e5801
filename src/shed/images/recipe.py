"""Makes an ordinary OCI image from Debian packages: ``python -m shed.images.recipe FOLDER ARCHIVE``.

FOLDER holds ``recipe.yaml`` (suite, packages, and the ``config`` of the image) and, when more is to be done, an executable ``customize``
that is called with the unpacked root file system.  mmdebstrap does the work, as root or as an ordinary user.  The same packages give the
same bytes: times are no later than that of the suite's release.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shed.errors import ShedError, UsageError
from shed.images.bootkit.archive import KEYRING, Archive
from shed.oci.digest import Digest
from shed.oci.pack import pack_archive
from shed.run import Argument, run

SECURITY_MIRROR = "http://deb.debian.org/debian-security"
_KEYS = {"suite": str, "packages": list, "config": dict}
_DPKG_OPTIONS = (
    "force-unsafe-io",
    "path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright", "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*", "path-exclude=/usr/share/locale/*", "path-exclude=/usr/share/lintian/*",
)  # fmt: skip
"""Options for dpkg, which stay in the image, as in Debian's container images: no waiting for the disk, no documentation."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an image is made of."""

    folder: Path
    suite: str
    packages: tuple[str, ...]
    config: Mapping[str, Any]


def read_recipe(folder: Path) -> Recipe:
    """Return the recipe in `folder`.  Raises `UsageError` for keys and types that a recipe does not have."""
    path = folder / "recipe.yaml"
    try:
        fields = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist", hint="name a folder with a recipe, for example images/base") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {error}") from None
    if not isinstance(fields, dict) or set(fields) != set(_KEYS) or not all(isinstance(fields[key], kind) for key, kind in _KEYS.items()):
        raise UsageError(f"{path} must have exactly: suite (a name), packages (a list), config (a mapping)")
    return Recipe(folder, fields["suite"], tuple(map(str, fields["packages"])), fields["config"])


def build_image(recipe: Recipe, output: Path) -> Digest:
    """Write the image to the OCI archive `output` and return its manifest's digest.  Raises `ShedError`."""
    archive = Archive(suite=recipe.suite)
    with tempfile.TemporaryDirectory(prefix="shed-recipe-", dir=output.absolute().parent) as folder:
        root = Path(folder) / "root.tar"
        environment = {"SOURCE_DATE_EPOCH": str(archive.released())}
        run(mmdebstrap_command(recipe, archive, root), env=environment, hint="install the package mmdebstrap")
        return pack_archive(output, [root], settings=recipe.config, name=recipe.folder.name, created_by=f"recipe {recipe.folder.name}")


def mmdebstrap_command(recipe: Recipe, archive: Archive, output: Path) -> list[Argument]:
    """Return the command that makes the root file system of `recipe` as the tar file `output`."""
    suite = recipe.suite
    command: list[Argument] = ["mmdebstrap", "--variant=minbase", f"--architectures={archive.architecture}", "--format=tar"]
    command += [f"--keyring={archive.keyring}", f"--include={','.join(recipe.packages)}"]
    command += [f"--dpkgopt={option}" for option in _DPKG_OPTIONS]
    customize = recipe.folder.absolute() / "customize"
    if customize.exists():
        command.append(f"--customize-hook={customize}")
    command += [suite, output]
    sources = {suite: archive.mirror, f"{suite}-updates": archive.mirror, f"{suite}-security": SECURITY_MIRROR}
    return [*command, *(f"deb [signed-by={KEYRING}] {mirror} {name} main" for name, mirror in sources.items())]


def main() -> int:
    """Build what the command line names; return an exit status."""
    if len(sys.argv) != 3:
        sys.stderr.write("usage: python -m shed.images.recipe FOLDER ARCHIVE\n")
        return 2
    folder, output = map(Path, sys.argv[1:])
    try:
        digest = build_image(read_recipe(folder), output)
    except ShedError as error:
        sys.stderr.write(f"{folder}: {error}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return error.exit_code
    sys.stdout.write(f"{output}: {digest}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
