"""Makes an ordinary OCI image from Debian packages, by a recipe: ``shed image make``.

A recipe is a folder that holds ::

    recipe.yaml    ``suite``, to begin with nothing, or ``from``, a recipe that comes with shed or the folder of one;
                   and the image's ``config``
    packages       names, one a line; ``#`` begins a comment
    customize      shell script, called with the unpacked root file system when the packages are installed; optional

mmdebstrap does the work, as root or as an ordinary user.  An image that builds on another has that one's layers, byte
for byte, and one more.  The same packages give the same bytes: times are no later than that of the suite's release.
"""

from __future__ import annotations

import contextlib
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shed.budget import Reserve
from shed.config.images import VARIANTS
from shed.entries import Entry
from shed.errors import UsageError
from shed.images.bootkit.debian_archive import KEYRING, DebianArchive
from shed.oci.archive import open_archive, open_blob
from shed.oci.content import Archive, FileSlice
from shed.oci.decompression import Spool
from shed.oci.descriptor import Descriptor
from shed.oci.diff import diff
from shed.oci.digest import Digest
from shed.oci.flatten import flatten
from shed.oci.layers import per_layer, read_layer
from shed.oci.pack import pack_archive
from shed.oci.selection import SelectedImage, select_image
from shed.oci.staging import StagedBlob
from shed.oci.tarstream import Member, read_tar
from shed.oci.tarwrite import write_tar
from shed.oci.unpack_limits import Part, Unpacking
from shed.progress import Progress
from shed.run import Argument, ToolError, run_streaming

_DEVICES = b"dev/"


@dataclass(frozen=True, slots=True)
class Parent:
    """An image that is open, and its tree."""

    archive: Archive
    chosen: SelectedImage
    entries: list[Entry]

    def write_root(self, path: Path) -> None:
        """Write the tree to the tar file `path`, without devices.

        Users other than root cannot make them, and the program that unpacks the file has its own.
        """
        with path.open("wb") as file:
            file.writelines(write_tar(entry for entry in self.entries if not entry.path.startswith(_DEVICES)))


@contextlib.contextmanager
def open_parent(source: Path, *, scratch: Path) -> Iterator[Parent]:
    """Yield the image in the archive `source`; its layers are unpacked into `scratch`.

    Raises `DataError` when it is damaged.
    """
    with contextlib.ExitStack() as stack:
        archive = stack.enter_context(open_archive(source, scratch=scratch))
        chosen = select_image(archive)

        def read(layer: Descriptor, diff_id: Digest, part: Part) -> list[Member]:
            blob = stack.enter_context(StagedBlob.create(scratch, Reserve(scratch).check))
            spool = stack.enter_context(Spool(scratch, part))
            source = open_blob(archive, layer, part.what)
            return read_layer(source, layer, diff_id, blob=blob, spool=spool, part=part)

        unpacking = Unpacking(Reserve(scratch))
        layers = per_layer(chosen.manifest, chosen.config, unpacking, read, of=f"{archive.name}: ")
        yield Parent(archive, chosen, list(flatten(layers)))


def pack_derived(
    output: Path, parent: Parent, root: Path, *, settings: Mapping[str, Any], name: str, created_by: str
) -> Digest:
    """Write an archive of `parent` and one more layer, which makes its tree that of the tar file `root`.

    Return the manifest's digest.

    `settings` go over the parent's, as a Containerfile's would.
    """
    layer = root.with_suffix(".layer")
    with root.open("rb") as tree, layer.open("wb") as file:
        whole = FileSlice(tree.fileno(), 0, root.stat().st_size)
        file.writelines(write_tar(diff(parent.entries, flatten([read_tar(whole, Unpacking().part("the new layer"))]))))
    merged = merge_settings(parent.chosen.config.settings, settings)
    return pack_archive(
        output, [layer], parent=(parent.archive, parent.chosen), settings=merged, name=name, created_by=created_by
    )


def merge_settings(parent: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``config`` objects merged: variables and labels one by one, everything else as a whole."""
    merged = {**parent, **own}
    variables = {entry.partition("=")[0]: entry for settings in (parent, own) for entry in settings.get("Env", [])}
    labels = {**parent.get("Labels", {}), **own.get("Labels", {})}
    return merged | ({"Env": list(variables.values())} if variables else {}) | ({"Labels": labels} if labels else {})


RECIPES = Path(__file__).with_name("recipes")
SECURITY_MIRROR = "http://deb.debian.org/debian-security"
_STEPS = ("downloading", "extracting", "installing", "creating")
"""How the lines of mmdebstrap begin that say what it does now."""
_LAST_WORDS = 2000
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
            below = RECIPES / name if name in VARIANTS else folder / name
            parent = _read_recipe(below, (*children, folder.resolve()))
            suite = parent.suite
        case _:
            raise UsageError(f"{path} must have exactly: suite (a name) or from (a folder), and config (a mapping)")
    return Recipe(folder, suite, parent, _read_packages(folder / "packages"), config)


def _read_fields(path: Path) -> object:
    try:
        return yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UsageError(
            f"{path} does not exist",
            hint="name a folder with a recipe, for example one of those that come with shed: base",
        ) from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {error}") from None


def _read_packages(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist", hint="list the image's packages in it, one a line") from None
    return tuple(words for line in lines if (words := line.partition("#")[0].strip()))


def find_recipe(text: str) -> Path:
    """Return the folder of the recipe that comes with shed and is called `text`, else the folder `text` itself."""
    return RECIPES / text if text in VARIANTS else Path(text)


def build_image(
    recipe: Recipe, output: Path, parent: Path | None = None, *, progress: Progress | None = None
) -> Digest:
    """Write the image to the OCI archive `output` and return its manifest's digest.

    `parent` is an archive of the image that the recipe builds on; without it, that is made on the way.  Raises
    `ShedError`.
    """
    archive = DebianArchive(suite=recipe.suite)
    created_by = f"recipe {recipe.name}"
    with tempfile.TemporaryDirectory(prefix="shed-recipe-", dir=output.absolute().parent) as name:
        folder = Path(name)
        root = folder / "root.tar"
        environment = {"SOURCE_DATE_EPOCH": str(archive.released())}
        if recipe.parent is None:
            _debootstrap(mmdebstrap_command(recipe, archive, root), environment, recipe, progress)
            return pack_archive(output, [root], settings=recipe.config, name=recipe.name, created_by=created_by)
        if parent is None:
            parent = folder / "parent.oci.tar"
            build_image(recipe.parent, parent, progress=progress)
        with open_parent(parent, scratch=folder) as opened:
            opened.write_root(folder / "parent.tar")
            command = mmdebstrap_command(recipe, archive, root, folder / "parent.tar")
            _debootstrap(command, environment, recipe, progress)
            return pack_derived(output, opened, root, settings=recipe.config, name=recipe.name, created_by=created_by)


def _debootstrap(
    command: list[Argument], environment: Mapping[str, str], recipe: Recipe, progress: Progress | None
) -> None:
    """Run mmdebstrap and pass on which step it is at.  Raises `ShedError` with the end of what it said."""
    said = bytearray()
    if progress is not None:
        progress.phase("packages", f"{recipe.name}: reading the lists of packages")

    def show(data: bytes) -> None:
        told = said.count(b"\n")
        said.extend(data)
        for line in said.split(b"\n")[told:-1]:
            text = line.decode(errors="replace").removeprefix("I: ")
            if progress is not None and text.startswith(_STEPS):
                progress.phase("packages", f"{recipe.name}: {text.rstrip('.')}")

    try:
        run_streaming(command, show=show, env=environment, hint="install the package mmdebstrap")
    except ToolError as error:
        words = bytes(said[-_LAST_WORDS:]).decode(errors="replace").strip()
        raise ToolError(f"{error.message}: {words}", hint="what mmdebstrap said last says why") from None


def mmdebstrap_command(
    recipe: Recipe, archive: DebianArchive, output: Path, parent: Path | None = None
) -> list[Argument]:
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
    scripts = [customize, _CLEAN] if customize.exists() else [_CLEAN]
    command += [*(f"--customize-hook={_hook(script)}" for script in scripts), recipe.suite, output]
    sources = {
        recipe.suite: archive.mirror,
        f"{recipe.suite}-updates": archive.mirror,
        f"{recipe.suite}-security": SECURITY_MIRROR,
    }
    return [*command, *(f"deb [signed-by={KEYRING}] {mirror} {name} main" for name, mirror in sources.items())]


def _hook(script: Path) -> str:
    """Return the hook that runs a shell script with the root file system as $1.

    The text goes along: who runs the hook for an ordinary user is another one, who cannot read in that user's home.
    """
    try:
        text = script.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {script}: {error}", hint="it must be a shell script") from None
    return f'sh -c {shlex.quote(text)} {shlex.quote(str(script))} "$1"'
