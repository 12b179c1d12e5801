"""What counts as left behind, and what does not."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shed.config.paths import Paths
from shed.fsutil import locked
from shed.oci.digest import hex_of
from shed.oci.store import LayoutStore
from shed.sheds.folders import prepare
from shed.sheds.orphans import OLD, find_orphans, remove_orphan


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """The folders of a server."""
    paths = Paths(tmp_path / "data", tmp_path / "run")
    prepare(paths)
    return paths


def age(path: Path) -> Path:
    """Have `path` look as if nobody had touched it for long."""
    then = time.time() - OLD - 60
    os.utime(path, (then, then))
    return path


def upper(paths: Paths) -> tuple[Path, Path]:
    """A writable layer, and its lock."""
    folder = paths.uppers / "dev"
    folder.mkdir()
    (folder / "upper.ext4").write_bytes(bytes(5000))
    return folder, paths.instances / ".dev.lock"


def reservation(paths: Paths) -> tuple[Path, Path]:
    """What a create that was cut short has left."""
    folder = paths.instances / ".dev.new"
    folder.mkdir()
    return folder, paths.instances / ".dev.lock"


def template(paths: Paths) -> tuple[Path, Path]:
    """An empty writable layer of a runtime that is not in the store."""
    path = paths.templates / f"upper-{'0' * 64}.ext4"
    path.touch()
    return path, paths.templates / ".lock"


def ready_template(paths: Paths) -> tuple[Path, Path]:
    """One that is named by its size too."""
    path = paths.templates / f"upper-{'0' * 64}-5G.ext4"
    path.touch()
    return path, paths.templates / ".lock"


def atomic_write(paths: Paths) -> tuple[Path, Path]:
    """The temporary file of a write that was cut short."""
    path = paths.images / "tags/.base.json.x.tmp"
    path.parent.mkdir()
    path.touch()
    return path, path


def staging(paths: Paths) -> tuple[Path, Path]:
    """A blob that was being written."""
    path = paths.images / "blobs/sha256/.staging-x.tmp"
    path.parent.mkdir(parents=True)
    path.touch()
    return path, path


def staging_folder(paths: Paths) -> tuple[Path, Path]:
    """A folder in which a blob was being made."""
    path = paths.images / "blobs/sha256/.staging-x.tmp"
    path.mkdir(parents=True)
    (path / "file").touch()
    return path, path


@pytest.mark.parametrize(
    "make",
    [upper, reservation, template, ready_template, atomic_write, staging, staging_folder],
    ids=lambda make: make.__name__,
)
def test_three_things_make_an_orphan(paths: Paths, make: Callable[[Paths], tuple[Path, Path]]) -> None:
    """It is old, its lock is free, and it has no owner; between the look and the removal that is asked again."""
    path, lock = make(paths)
    assert find_orphans(paths, None) == []
    age(path)
    (orphan,) = find_orphans(paths, None)
    assert (orphan.path, orphan.lock) == (path, lock)
    assert not path.is_file() or orphan.space.size == path.stat().st_size
    if not lock.is_dir():
        with locked(lock):
            assert find_orphans(paths, None) == []
            assert not remove_orphan(orphan)
    os.utime(path)
    assert not remove_orphan(orphan)
    assert path.exists()
    age(path)
    assert remove_orphan(orphan)
    assert not path.exists()
    assert lock == path or lock.exists()
    assert not remove_orphan(orphan)


def test_what_has_an_owner_is_none(paths: Paths) -> None:
    """A shed, one that is being made or deleted, a runtime in the store; also when that comes between look and
    removal.
    """
    folder, _ = upper(paths)
    age(folder)
    (orphan,) = find_orphans(paths, None)
    for owner in ("dev", ".dev.new", ".dev.gone"):
        (paths.instances / owner).mkdir()
        assert folder not in {found.path for found in find_orphans(paths, None)}
        assert not remove_orphan(orphan)
        (paths.instances / owner).rmdir()
    (paths.instances / "dev").symlink_to("/not/mounted")
    assert find_orphans(paths, None) == []
    shutil.rmtree(folder)
    store = LayoutStore(paths.images)
    runtime = store.put_bytes(b"runtime")
    templates = [paths.templates / f"upper-{hex_of(runtime)}{size}.ext4" for size in ("-100G", "-5G", "")]
    for path in templates:
        path.touch()
        age(path)
    assert find_orphans(paths, None) == []
    assert [found.path for found in find_orphans(paths, None, gone={store.blob_path(runtime)})] == templates
