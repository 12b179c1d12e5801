"""Makes an ordinary OCI image from Debian packages: ``python -m shed.images.recipe FOLDER ARCHIVE [PARENT]``.

FOLDER holds ::

    recipe.yaml    ``suite``, to begin with nothing, or ``from``, the folder of the recipe to build on; and the image's ``config``
    packages       names, one a line; ``#`` begins a comment
    customize      executable, called with the unpacked root file system when the packages are installed; not everyone needs one

mmdebstrap does the work, as root or as an ordinary user.  An image that builds on another has that one's layers, byte
for byte, and one more.  PARENT is an archive of the other image, which is made when none is given.  The same packages
give the same bytes: times are no later than that of the suite's release.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shed.errors import ShedError, UsageError
from shed.images.bootkit.archive import KEYRING, Archive
from shed.images.derive import open_parent, pack_derived
from shed.oci.digest import Digest
from shed.oci.pack import pack_archive
from shed.run import Argument, run

SECURITY_MIRROR = "http://deb.debian.org/debian-security"
_CLEAN = Path(__file__).with_name("recipe-clean")
_INSTALL = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "--no-install-recommends", "install")
_DPKG_OPTIONS = (
    "force-unsafe-io",
    "path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright", "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*", "path-exclude=/usr/share/locale/*", "path-exclude=/usr/share/lintian/*",
)  # fmt: skip
"""Options for dpkg, which stay in the image, as in Debian's container images: no waiting for the disk, no
documentation.
"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an image is made of."""

    folder: Path
    suite: str
    parent: Recipe | None
    packages: tuple[str, ...]
    config: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What the image is called: its folder's name."""
        return self.folder.absolute().name


def read_recipe(folder: Path) -> Recipe:
    """Return the recipe in `folder`, with those it builds on.

    Raises `UsageError` for keys and types that a recipe does not have.
    """
    return _read_recipe(folder, ())


def _read_recipe(folder: Path, children: tuple[Path, ...]) -> Recipe:
    path = folder / "recipe.yaml"
    if folder.resolve() in children:
        raise UsageError(f"{path} builds on itself")
    fields = _read_fields(path)
    match fields:
        case {"suite": str(suite), "config": dict(config), **others} if not others:
            parent = None
        case {"from": str(name), "config": dict(config), **others} if not others:
            parent = _read_recipe(folder / name, (*children, folder.resolve()))
            suite = parent.suite
        case _:
            raise UsageError(f"{path} must have exactly: suite (a name) or from (a folder), and config (a mapping)")
    return Recipe(folder, suite, parent, _read_packages(folder / "packages"), config)


def _read_fields(path: Path) -> object:
    try:
        return yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UsageError(
            f"{path} does not exist", hint="name a folder with a recipe, for example images/base"
        ) from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {error}") from None


def _read_packages(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist", hint="list the image's packages in it, one a line") from None
    return tuple(words for line in lines if (words := line.partition("#")[0].strip()))


def build_image(recipe: Recipe, output: Path, parent: Path | None = None) -> Digest:
    """Write the image to the OCI archive `output` and return its manifest's digest.

    `parent` is an archive of the image that the recipe builds on; without it, that is made on the way.  Raises
    `ShedError`.
    """
    archive = Archive(suite=recipe.suite)
    created_by = f"recipe {recipe.name}"
    with tempfile.TemporaryDirectory(prefix="shed-recipe-", dir=output.absolute().parent) as name:
        folder = Path(name)
        root = folder / "root.tar"
        environment = {"SOURCE_DATE_EPOCH": str(archive.released())}
        if recipe.parent is None:
            run(mmdebstrap_command(recipe, archive, root), env=environment, hint="install the package mmdebstrap")
            return pack_archive(output, [root], settings=recipe.config, name=recipe.name, created_by=created_by)
        if parent is None:
            parent = folder / "parent.oci.tar"
            build_image(recipe.parent, parent)
        with open_parent(parent, scratch=folder) as opened:
            opened.write_root(folder / "parent.tar")
            run(
                mmdebstrap_command(recipe, archive, root, folder / "parent.tar"),
                env=environment,
                hint="install the package mmdebstrap",
            )
            return pack_derived(output, opened, root, settings=recipe.config, name=recipe.name, created_by=created_by)


def mmdebstrap_command(recipe: Recipe, archive: Archive, output: Path, parent: Path | None = None) -> list[Argument]:
    """Return the command that makes the root file system of `recipe` as the tar file `output`.

    `parent` is that of the image below.
    """
    command: list[Argument] = [
        "mmdebstrap",
        f"--architectures={archive.architecture}",
        "--format=tar",
        f"--keyring={archive.keyring}",
    ]
    command += [f"--dpkgopt={option}" for option in _DPKG_OPTIONS]
    if parent is None:
        command += ["--variant=minbase", f"--include={','.join(recipe.packages)}"]
    else:  # the tree is Debian already: its own apt goes on from there
        install = shlex.join([*_INSTALL, *recipe.packages])
        command += [
            "--variant=custom",
            f"--setup-hook=tar-in {shlex.quote(str(parent))} /",
            f'--customize-hook=chroot "$1" {install}',
        ]
    customize = recipe.folder.absolute() / "customize"
    if customize.exists():
        command.append(f"--customize-hook={customize}")
    command += [f'--customize-hook=sh {shlex.quote(str(_CLEAN))} "$1"', recipe.suite, output]
    sources = {
        recipe.suite: archive.mirror,
        f"{recipe.suite}-updates": archive.mirror,
        f"{recipe.suite}-security": SECURITY_MIRROR,
    }
    return [*command, *(f"deb [signed-by={KEYRING}] {mirror} {name} main" for name, mirror in sources.items())]


def main() -> int:
    """Build what the command line names; return an exit status."""
    if len(sys.argv) not in (3, 4):
        sys.stderr.write("usage: python -m shed.images.recipe FOLDER ARCHIVE [PARENT]\n")
        return 2
    folder, output, *parent = map(Path, sys.argv[1:])
    try:
        digest = build_image(read_recipe(folder), output, *parent)
    except ShedError as error:
        sys.stderr.write(f"{folder}: {error}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return error.exit_code
    sys.stdout.write(f"{output}: {digest}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
