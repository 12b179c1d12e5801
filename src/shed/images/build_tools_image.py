"""Makes the image of build tools from Debian packages, where the release's image cannot be had: ``make build-tools``.

It holds mkfs.erofs, dump.erofs, fsck.erofs and mkfs.ext4 with the libraries that they need, and nothing else.  The
packages are pinned in the recipe's ``packages.lock.json``.  When the mirror no longer has one of them, all are taken as
the suite has them now: libraries of different days may not fit each other.  The same packages give the same image.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from shed.errors import DataError, ShedError, UnavailableError
from shed.images.bootkit.build import default_cache
from shed.images.bootkit.debian_archive import DebianArchive, Package
from shed.images.bootkit.debs import (
    LOADER,
    Deb,
    closure,
    fetch_debs,
    read_libraries,
    read_lock,
    read_released,
    write_lock,
)
from shed.images.bootkit.tree import Tree
from shed.images.engine import Engine, find_engine
from shed.images.writers import DEVELOPMENT
from shed.oci.descriptor import Platform
from shed.oci.digest import Digest
from shed.oci.pack import pack_archive
from shed.oci.tarwrite import write_tar
from shed.progress import Event, Progress, WarningEvent

SUITE = "sid"
"""Which has an erofs-utils that is new enough; trixie's is not."""
LOCK_NAME = "packages.lock.json"
EROFS_UTILS = "erofs-utils"
_ROOTS = (EROFS_UTILS, "e2fsprogs", "libext2fs2t64", "libblkid1")
"""The tools, and libraries that packages depend on in ways the index lists elsewhere."""
_OLDEST = (1, 9, 1)
_EROFS_TOOLS = ("mkfs.erofs", "dump.erofs", "fsck.erofs")
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_UNWINDER = "libgcc_s.so.1"
"""The C library loads it when a thread ends; no program names it."""
_SMOKE = (
    ["mkfs.erofs", "--quiet", "-zlz4", "smoke.erofs", "/usr"],
    ["fsck.erofs", "smoke.erofs"],
    ["dump.erofs", "smoke.erofs"],
    ["mkfs.ext4", "-q", "smoke.ext4", "8M"],
)
"""Commands that show that each tool does its work."""


def pack_build_tools(output: Path, *, lock: Path, cache: Path, progress: Progress) -> Digest:
    """Write the image to the OCI archive `output`, tagged `DEVELOPMENT`, and return its manifest's digest.

    Packages are kept in the folder `cache`.  Raises `ShedError`.
    """
    progress.phase("packages", "getting Debian packages")
    archive = DebianArchive(suite=SUITE, not_before=read_released(lock))
    debs = _debs(archive, read_lock(lock), cache, progress)
    version = debs[EROFS_UTILS].package.version
    if _numbers(version) < _OLDEST:
        raise DataError(f"erofs-utils {version} is too old: 1.9.1 or newer is needed")
    progress.phase("pack", f"packing erofs-utils {version}")
    with tempfile.NamedTemporaryFile(suffix=".tar", dir=output.absolute().parent) as layer:
        layer.writelines(write_tar(_tree(debs).entries()))
        layer.flush()
        return pack_archive(
            output,
            [Path(layer.name)],
            settings=_settings(debs),
            platform=Platform("linux", archive.architecture),
            name=DEVELOPMENT,
            created_by="images/build-tools",
        )


def install(engine: Engine, archive: Path) -> None:
    """Load the image into `engine` and use each tool once.  Raises `ToolError`."""
    engine.load(archive)
    with tempfile.TemporaryDirectory(dir=archive.absolute().parent) as work:
        for words in _SMOKE:
            engine.run(DEVELOPMENT, words, work=Path(work))


def resolve(archive: DebianArchive) -> dict[str, Package]:
    """Return what the suite has now of the tools and of all that they depend on."""
    found: dict[str, Package] = {}
    waiting = list(_ROOTS)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = archive.newest(name)
            waiting += archive.dependencies(name)
    return found


def _debs(archive: DebianArchive, lock: Mapping[str, Package], cache: Path, progress: Progress) -> dict[str, Deb]:
    try:
        return fetch_debs(lock, archive=archive, cache=cache, progress=progress, locked=True, lock=lock)
    except UnavailableError as error:
        if error.code != "PACKAGE_GONE":
            raise
        progress.warn(f"{error.message}: taking all packages as {archive.suite} has them now")
    now = resolve(archive)
    return fetch_debs(now, archive=archive, cache=cache, progress=progress, locked=True, lock=now)


def _tree(debs: Mapping[str, Deb]) -> Tree:
    programs = {name: debs[EROFS_UTILS].read(f"usr/bin/{name}") for name in _EROFS_TOOLS}
    programs["mkfs.ext4"] = debs["e2fsprogs"].read("usr/sbin/mke2fs")
    libraries = read_libraries(debs.values())
    needed = {**closure(programs, libraries), _UNWINDER: libraries[_UNWINDER]}
    tree = Tree()
    tree.folder("tmp", 0o1777)
    tree.file("etc/mke2fs.conf", debs["e2fsprogs"].read("etc/mke2fs.conf"))
    tree.symlink(f"lib64/{LOADER}", f"../{_LIBRARIES}/{LOADER}")
    for name, data in programs.items():
        tree.file(f"usr/bin/{name}", data, 0o755)
    for name, data in needed.items():
        tree.file(f"{_LIBRARIES}/{name}", data, 0o755)
    return tree


def _settings(debs: Mapping[str, Deb]) -> dict[str, object]:
    packages = " ".join(
        f"{deb.package.name}={deb.package.version}" for deb in sorted(debs.values(), key=lambda deb: deb.package.name)
    )
    return {
        "Entrypoint": ["mkfs.erofs"],
        "Env": ["PATH=/usr/bin", "LC_ALL=C"],
        "Labels": {
            "org.opencontainers.image.title": "shed build tools",
            "org.opencontainers.image.version": debs[EROFS_UTILS].package.version,
            "io.shed.build-tools.packages": packages,
        },
    }


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version.partition("-")[0])))


def main() -> int:
    """Make and load the image of the recipe, or pin new packages: ``… build_tools_image FOLDER [--pin]``."""
    folder, *options = sys.argv[1:]
    lock = Path(folder) / LOCK_NAME
    try:
        if options == ["--pin"]:
            archive = DebianArchive(suite=SUITE)
            write_lock(resolve(archive), archive, lock, released=archive.released())
            return 0
        engine = find_engine()
        with tempfile.TemporaryDirectory(prefix="shed-build-tools-") as scratch:
            output = Path(scratch) / "build-tools.oci.tar"
            pack_build_tools(output, lock=lock, cache=default_cache(), progress=Progress(_show))
            install(engine, output)
    except ShedError as error:
        sys.stderr.write(f"build-tools: {error}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return error.exit_code
    sys.stdout.write(f"{engine.program} has {DEVELOPMENT}, {engine.image_id(DEVELOPMENT)}\n")
    return 0


def _show(event: Event) -> None:
    if isinstance(event, WarningEvent):
        sys.stderr.write(f"warning: {event.message}\n")


if __name__ == "__main__":
    sys.exit(main())
