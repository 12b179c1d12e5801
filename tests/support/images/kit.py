"""The real boot kit and real images, made once and kept in ``.cache/tests`` for all later test runs
(``SHED_TEST_CACHE`` overrides).

::

    debs/             downloaded packages
    kit/              a store with the boot kit of the current code; building it again without a change takes no time
    archives/NAME-*   OCI archives, named by what they are made from
    store-*           stores with the kit and the images; named by all that decides them
    templates-*       machines to restore VMs from; see `support.vms.templates`

A fixture's store is shared: read it, do not change it.  `images_dir` is a copy of one's own, by hardlinks.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import shed
from shed.fsutil import locked
from shed.images.bootkit.build import build_kit
from shed.images.bootkit.kit import KIT_FILE, Kit, load_kit
from shed.images.mint import mint_archive
from shed.images.recipe import build_image, find_recipe, read_recipe
from shed.oci.store import LayoutStore
from shed.progress import Progress
from support.images.small_images import busybox_image, shell_less_image

ROOT = Path(__file__).resolve().parents[3]
CACHE = Path(os.environ.get("SHED_TEST_CACHE", ROOT / ".cache/tests"))
PACKAGE = Path(shed.__file__).parent
_KEPT = 6
"""How many of a kind are kept; one run of the tests needs four stores."""

_VARIANTS = ("base", "extensions", "full")
"""The published images, each on the one before it."""


def _variant(name: str) -> tuple[Callable[[Path], object], tuple[Path, ...]]:
    chain = _VARIANTS[: _VARIANTS.index(name) + 1]
    code = [*PACKAGE.glob("images/recipe*"), *(PACKAGE.glob("oci/*.py") if chain[1:] else ())]

    def make(output: Path) -> object:
        return build_image(read_recipe(find_recipe(name)), output, archive(chain[-2]) if chain[1:] else None)

    return make, (*(find_recipe(part) for part in chain), PACKAGE / "oci/pack.py", *sorted(code))


MAKERS: dict[str, tuple[Callable[[Path], object], tuple[Path, ...]]] = {
    **{name: _variant(name) for name in _VARIANTS},
    "busybox": (
        lambda output: busybox_image(output, CACHE / "debs"),
        (Path(__file__).with_name("small_images.py"), PACKAGE / "oci/pack.py"),
    ),
    "shell-less": (shell_less_image, (Path(__file__).with_name("small_images.py"), PACKAGE / "oci/pack.py")),
}
"""How each image is made, and which sources decide its bytes."""


def built_kit() -> LayoutStore:
    """Return a store with the boot kit of the code as it is now."""
    CACHE.mkdir(parents=True, exist_ok=True)
    store = LayoutStore(CACHE / "kit")
    with locked(CACHE / "kit.lock", limit=math.inf):
        build_kit(store, cache=CACHE / "debs", progress=Progress())
    return store


def archive(name: str) -> Path:
    """Return the OCI archive of the image `name`, one of `MAKERS`, making it when it is not there."""
    make, sources = MAKERS[name]
    folder = CACHE / "archives"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{digest_of(sources)}.oci.tar"
    with locked(folder / f"{name}.lock", limit=math.inf):
        if not path.exists():
            make(path)
            prune(folder, f"{name}-*.oci.tar")
    return path


def image_store(*names: str) -> LayoutStore:
    """Return a store with the kit and the images `names`, minted under these names."""
    kit_store = built_kit()
    archives = [archive(name) for name in names]
    code = digest_of([PACKAGE / part for part in ("erofs", "oci", "images", "entries.py")])
    kit = hashlib.sha256((kit_store.root / KIT_FILE).read_bytes()).hexdigest()
    key = hashlib.sha256("\n".join([code, kit, *(path.name for path in archives)]).encode()).hexdigest()[:16]
    store = LayoutStore(CACHE / f"store-{key}")
    with locked(CACHE / "store.lock", limit=math.inf):
        if not (store.root / "complete").exists():
            shutil.rmtree(store.root, ignore_errors=True)
            copy_store(kit_store, store.root)
            for name, path in zip(names, archives, strict=True):
                mint_archive(store, path, name, kit=load_kit(store))
            (store.root / "complete").touch()
        os.utime(store.root)
        prune(CACHE, "store-*")
    return store


def copy_store(source: LayoutStore, target: Path) -> LayoutStore:
    """Return a copy of `source` in the new folder `target`; its blobs are hardlinks where the file system allows."""
    target.mkdir(parents=True)
    for path in sorted(source.root.rglob("*")):
        copy = target / path.relative_to(source.root)
        if path.is_dir():
            copy.mkdir()
        elif path.parent == source.blobs and path.stat().st_dev == target.parent.stat().st_dev:
            os.link(path, copy)
        else:
            shutil.copy(path, copy)
    return LayoutStore(target)


def digest_of(sources: list[Path] | tuple[Path, ...]) -> str:
    """Return a short digest of the files `sources` and of all in those that are folders."""
    digest = hashlib.sha256()
    for source in sources:
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(source.parent)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def prune(folder: Path, pattern: str) -> None:
    """Remove all but the latest used of what matches `pattern`: who uses one sets its time."""
    for path in sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)[:-_KEPT]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture(scope="session")
def kit_store() -> LayoutStore:
    """Return a store with nothing but the boot kit."""
    return image_store()


@pytest.fixture(scope="session")
def kit(kit_store: LayoutStore) -> Kit:
    """Return the boot kit of `kit_store`."""
    return load_kit(kit_store)


@pytest.fixture(scope="session")
def base_archive() -> Path:
    """Return the OCI archive of the base image, not minted."""
    return archive("base")


@pytest.fixture(scope="session")
def base_store() -> LayoutStore:
    """Return a store with the images base, busybox and shell-less."""
    return image_store("base", "busybox", "shell-less")


@pytest.fixture(scope="session")
def variant_archives() -> dict[str, Path]:
    """Return the OCI archives of the published images by name, not minted."""
    return {name: archive(name) for name in _VARIANTS}


@pytest.fixture(scope="session")
def variant_store() -> LayoutStore:
    """Return a store with the images extensions and full."""
    return image_store("extensions", "full")


@pytest.fixture(scope="session")
def small_store() -> LayoutStore:
    """Return a store with the images busybox and shell-less, which are made in seconds."""
    return image_store("busybox", "shell-less")


@pytest.fixture
def images_dir(base_store: LayoutStore, tmp_path: Path) -> Path:
    """Return a store's folder of the test's own, with the images base, busybox and shell-less."""
    return copy_store(base_store, tmp_path / "images").root
