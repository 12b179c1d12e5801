"""Makes the boot kit from Debian packages.  The same packages and the same agent give the same three digests."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import shed
from shed.erofs.writer import WriterOptions, write_image
from shed.errors import DataError, NotFoundError
from shed.images.bootkit import recipe
from shed.images.bootkit.archive import Archive
from shed.images.bootkit.debs import Deb, fetch_debs
from shed.images.bootkit.initrd import build_initrd
from shed.images.bootkit.kernel import Kernel, load_kernel
from shed.images.bootkit.kit import Kit, load_kit, save_kit
from shed.images.bootkit.libraries import LOADER, closure, read_libraries
from shed.images.bootkit.modules import EARLY, LATE, Module, load_order, module_name, parse_module
from shed.images.bootkit.runtime import PYTHON, build_runtime, read_agent, read_stdlib
from shed.images.bootkit.tree import Tree
from shed.images.bootkit.upper import SparseFile, make_upper
from shed.oci.digest import digest_bytes
from shed.oci.store import LayoutStore
from shed.progress import Progress

_KERNEL_PARTS = ("fs/", "lib/", "crypto/", "net/", "arch/", "drivers/block/", "drivers/net/", "drivers/char/", "drivers/virtio/")
"""Folders of a kernel package's modules in which those that we want can be, with all that they depend on."""


def build_kit(store: LayoutStore, *, cache: Path, progress: Progress, locked: bool = False, archive: Archive | None = None) -> Kit:
    """Build the boot kit, put its blobs into `store`, and make it the store's kit.

    Downloaded packages are kept in the folder `cache`.  When the store has a kit of the same packages and the same agent, that one is
    returned.  With `locked`, only the pinned versions of packages will do.  Raises `ShedError`.
    """
    archive = archive or Archive()
    progress.phase("packages", "getting Debian packages")
    debs = fetch_debs(recipe.ALL, archive=archive, cache=cache, progress=progress, locked=locked)
    package = Path(shed.__file__).parent
    inputs = fingerprint(debs, package)
    current = _current(store)
    if current and current.record.get("inputs") == inputs:
        return current
    with tempfile.TemporaryDirectory(prefix="shed-kit-") as folder:
        scratch = Path(folder)
        busybox = _file(debs["busybox-static"], "usr/bin/busybox")
        progress.phase("kernel", "unpacking the kernel")
        kernel, early, late = read_kernel(debs["linux-image-amd64"])
        initrd = build_initrd(busybox=busybox, init=(package / "guest/init").read_bytes(), early=early, late=late, release=kernel.release)
        progress.phase("runtime", "building the agent's runtime")
        tree = _runtime(debs, busybox, package, scratch)
        progress.phase("store", "writing the boot kit")
        with store.stage() as blob:
            result = write_image(tree.entries(), blob.file, WriterOptions())
            runtime = blob.commit()
        kit = Kit(
            kernel=store.put_bytes(kernel.image),
            initrd=store.put_bytes(initrd),
            runtime=runtime,
            record={
                "inputs": inputs,
                "architecture": archive.architecture,
                "kernel_release": kernel.release,
                "erofs_algorithms": kernel.erofs_algorithms,
                "modules": {"early": [module.name for module in early], "late": [module.name for module in late]},
                "packages": [describe(deb) for deb in debs.values()],
                "writer": result.writer,
            },
        )
    save_kit(store, kit)
    return kit


def read_kernel(deb: Deb) -> tuple[Kernel, list[Module], list[Module]]:
    """Return the kernel of a package, and its modules for before and after the start of the agent, each in load order.

    Raises `DataError` when the package lacks something that a shed needs.
    """
    release = deb.package.name.removeprefix("linux-image-")
    top = f"usr/lib/modules/{release}/"

    def wanted(path: str) -> bool:
        inside = path.removeprefix(f"{top}kernel/")
        return path.startswith("boot/") or path == f"{top}modules.builtin" or (inside != path and inside.startswith(_KERNEL_PARTS))

    files = {path: content for path, content, _ in deb.members(wanted) if isinstance(content, bytes)}
    try:
        image, config = files[f"boot/vmlinuz-{release}"], files[f"boot/config-{release}"]
        builtin = frozenset(module_name(line) for line in files[f"{top}modules.builtin"].decode().split())
    except KeyError as error:
        raise DataError(f"{deb.package.name} has no {error.args[0]}") from None
    paths = {module_name(path): path for path in files if ".ko" in path}
    modules: dict[str, Module] = {}

    def find(name: str) -> Module | None:
        if name not in modules and name in paths:
            modules[name] = parse_module(paths[name], files[paths[name]])
        return modules.get(name)

    early = load_order(EARLY, find, builtin=builtin)
    late = load_order(LATE, find, builtin=builtin, loaded=early)
    return load_kernel(release=release, bzimage=image, config=config.decode()), early, late


def fingerprint(debs: Mapping[str, Deb], package: Path) -> str:
    """Return a digest of all that decides the kit: the packages, the agent, and the code that builds."""
    sources = sorted([*package.joinpath("guest").rglob("*"), *Path(__file__).parent.glob("*"), *package.joinpath("erofs").glob("*.py")])
    lines = [f"{name} {deb.package.sha256}" for name, deb in debs.items()]
    lines += [f"{path.relative_to(package)} {digest_bytes(path.read_bytes())}" for path in sources if _is_source(path)]
    return digest_bytes("\n".join(lines).encode())


def describe(deb: Deb) -> dict[str, Any]:
    """Return what the kit's record says of a package."""
    package = deb.package
    return {"name": package.name, "version": package.version, "sha256": package.sha256, "locked": deb.locked}


def _is_source(path: Path) -> bool:
    return path.is_file() and path.suffix in ("", ".py") and "__pycache__" not in path.parts


def _runtime(debs: Mapping[str, Deb], busybox: bytes, package: Path, scratch: Path) -> Tree:
    libraries = read_libraries(debs[name] for name in recipe.PYTHON)
    tree = build_runtime(
        python=_file(debs["python3.13-minimal"], f"usr/bin/{PYTHON}"),
        busybox=busybox,
        stdlib=read_stdlib((debs[name] for name in recipe.PYTHON), libraries),
        libraries=libraries,
        agent=read_agent(package),
        scratch=_folder(scratch / "runtime"),
    )
    mke2fs = _file(debs["e2fsprogs"], "usr/sbin/mke2fs")
    needed = closure({"mke2fs": mke2fs}, read_libraries(debs[name] for name in recipe.MKE2FS))
    upper = make_upper(_folder(scratch / "upper"), mke2fs, needed, LOADER)
    tree.content("share/upper.ext4", SparseFile(upper), upper.stat().st_size)
    return tree


def _file(deb: Deb, path: str) -> bytes:
    for _, content, _ in deb.members(lambda name: name == path):
        if isinstance(content, bytes):
            return content
    raise DataError(f"package {deb.package.name} {deb.package.version} has no {path}")


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _current(store: LayoutStore) -> Kit | None:
    try:
        return load_kit(store)
    except (NotFoundError, DataError):
        return None
