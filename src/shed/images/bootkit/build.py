"""Makes the boot kit from Debian packages.  The same packages and the same agent give the same three digests."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import shed
from shed.erofs.tree import FileContent
from shed.erofs.writer import WriterOptions, write_image
from shed.errors import DataError, NotFoundError
from shed.fsutil import atomic_write
from shed.images import trust
from shed.images.bootkit import packages
from shed.images.bootkit.debian_archive import DebianArchive
from shed.images.bootkit.debs import LOADER, Deb, closure, fetch_debs, read_libraries, read_released
from shed.images.bootkit.initrd import build_initrd
from shed.images.bootkit.kernel import KernelPackage, read_kernel_package
from shed.images.bootkit.kit import KIT_FILE, Kit, load_kit
from shed.images.bootkit.runtime import PYTHON, build_runtime, read_agent, read_stdlib
from shed.images.bootkit.tree import Tree
from shed.images.bootkit.upper import READY, SMALL, make_uppers, pack_upper
from shed.oci.digest import Digest, digest_bytes, digest_fd
from shed.oci.leases import Lease
from shed.oci.store import LayoutStore
from shed.progress import Progress

_PACKAGE = Path(shed.__file__).parent
_INIT = _PACKAGE / "guest/init"
_MODPROBE = _PACKAGE / "guest/modprobe"


def default_cache() -> Path:
    """Return where downloaded packages are kept: ``~/.cache/shed/debs``, or below ``XDG_CACHE_HOME``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shed/debs"


def build_kit(
    store: LayoutStore,
    *,
    progress: Progress,
    cache: Path | None = None,
    locked: bool = False,
    archive: DebianArchive | None = None,
) -> Kit:
    """Build the boot kit, put its blobs into `store`, and make it the store's kit.

    Downloaded packages are kept in the folder `cache`.  Blobs that the store's kit made of the same packages and the
    same code are kept. With `locked`, only the pinned versions of packages will do.  Raises `ShedError`.
    """
    archive = archive or DebianArchive(not_before=read_released())
    progress.phase("packages", "getting Debian packages")
    cache = cache or default_cache()
    debs = fetch_debs(packages.ALL, archive=archive, cache=cache, progress=progress, locked=locked)
    kit = _current(store)
    before = kit.record.get("inputs") if kit else None
    inputs = {"boot": _boot_inputs(debs), "runtime": _runtime_inputs(debs)}
    if kit and before == inputs:
        return kit
    progress.phase("kernel", "unpacking the kernel")
    package = read_kernel_package(debs[packages.KERNEL])
    with store.lease() as lease:
        if kit and isinstance(before, dict) and before.get("boot") == inputs["boot"]:
            kernel, initrd, record = kit.kernel, kit.initrd, dict(kit.record)
        else:
            kernel, initrd, record = _boot(store, lease, debs, package)
        progress.phase("runtime", "building the agent's runtime")
        runtime, writer = _runtime(store, lease, debs, package, cache)
        described = [_describe(deb) for deb in debs.values()]
        record |= {"inputs": inputs, "architecture": archive.architecture, "packages": described, "writer": writer}
        kit = Kit(kernel, initrd, runtime, record)
        save_kit(store, kit)
    return kit


def save_kit(store: LayoutStore, kit: Kit) -> None:
    """Make `kit` the one that new images are minted with; its kernel may boot here from then on."""
    trust.add_kit(store, kit)
    atomic_write(store.root / KIT_FILE, json.dumps(asdict(kit), indent=2, sort_keys=True) + "\n")


def _boot(
    store: LayoutStore, lease: Lease, debs: Mapping[str, Deb], package: KernelPackage
) -> tuple[Digest, Digest, dict[str, Any]]:
    """Store kernel and initrd; return their digests, and what the kit's record says of them."""
    initrd = build_initrd(busybox=_busybox(debs), init=_INIT.read_bytes(), early=package.early, late=package.late)
    lease.blobs(digest_bytes(package.kernel.image), digest_bytes(initrd))
    return (
        store.put_bytes(package.kernel.image),
        store.put_bytes(initrd),
        {
            "kernel_release": package.kernel.release,
            "erofs_algorithms": package.kernel.erofs_algorithms,
            "modules": {
                "early": [module.name for module in package.early],
                "late": [module.name for module in package.late],
            },
        },
    )


def _runtime(
    store: LayoutStore, lease: Lease, debs: Mapping[str, Deb], package: KernelPackage, cache: Path
) -> tuple[Digest, str]:
    """Store the runtime; return its digest, and what wrote its EROFS.

    Programs run in `cache`: other places may forbid that.
    """
    with tempfile.TemporaryDirectory(prefix="kit-", dir=cache) as folder:
        tree = _runtime_tree(debs, Path(folder))
        for module in package.on_demand:
            tree.file(f"modules/{module.file_name}", module.data)
        tree.file("modules/aliases", package.aliases)
        with store.stage() as blob:
            result = write_image(tree.entries(), blob.file, WriterOptions())
            blob.sync()
            digest = digest_fd(blob.file.fileno())
            lease.blobs(digest)
            return blob.commit(digest), result.writer


def _runtime_tree(debs: Mapping[str, Deb], scratch: Path) -> Tree:
    python = [debs[name] for name in packages.PYTHON]
    libraries = read_libraries(python)
    tree = build_runtime(
        python=debs["python3.13-minimal"].read(f"usr/bin/{PYTHON}"),
        busybox=_busybox(debs),
        stdlib=read_stdlib(python, libraries),
        libraries=libraries,
        agent=read_agent(_PACKAGE),
        modprobe=_MODPROBE.read_bytes(),
        helpers={name: debs[package].read(path) for name, (package, path) in packages.HELPERS.items()},
        scratch=scratch / "runtime",
    )
    mke2fs = debs["e2fsprogs"].read("usr/sbin/mke2fs")
    needed = closure({"mke2fs": mke2fs}, read_libraries(debs[name] for name in packages.MKE2FS))
    uppers = make_uppers(scratch / "uppers", mke2fs, needed, LOADER)
    tree.content("share/upper.ext4", FileContent(os.fsencode(uppers[SMALL])), SMALL)
    for size in READY:
        tree.file(f"share/uppers/{size >> 30}G", pack_upper(uppers[size]))
    return tree


def _boot_inputs(debs: Mapping[str, Deb]) -> str:
    return _fingerprint((debs[name] for name in (packages.KERNEL, packages.SHELL)), [_INIT])


def _runtime_inputs(debs: Mapping[str, Deb]) -> str:
    sources = [_PACKAGE / "__init__.py", _MODPROBE, *_PACKAGE.glob("guest/**/*.py"), *_PACKAGE.glob("erofs/*.py")]
    return _fingerprint(debs.values(), sources)


def _fingerprint(debs: Iterable[Deb], sources: Iterable[Path]) -> str:
    """Return a digest of all that decides a blob: packages, files, and the code that builds."""
    lines = [deb.package.sha256 for deb in debs]
    files = sorted([*sources, *Path(__file__).parent.glob("*.py")])
    lines += [f"{path.relative_to(_PACKAGE)} {digest_bytes(path.read_bytes())}" for path in files]
    return digest_bytes("\n".join(lines).encode())


def _busybox(debs: Mapping[str, Deb]) -> bytes:
    return debs[packages.SHELL].read("usr/bin/busybox")


def _describe(deb: Deb) -> dict[str, Any]:
    package = deb.package
    return {"name": package.name, "version": package.version, "sha256": package.sha256, "locked": deb.locked}


def _current(store: LayoutStore) -> Kit | None:
    try:
        return load_kit(store)
    except (NotFoundError, DataError):
        return None
