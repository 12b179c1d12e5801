"""A real container engine for tests, podman with a store of its own, and the image of build tools in it.

::

    .cache/tests/engine/        containers.conf, storage.conf; graph/: podman's store; build-tools.oci.tar

Its settings ask for as little of the machine as can be: no systemd, no overlay mounts.  Limits of files and processes
are podman's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.fsutil import atomic_write, locked
from shed.images.build_tools_image import LOCK_NAME, install, pack_build_tools
from shed.images.engine import Engine
from shed.images.writers import DEVELOPMENT
from shed.progress import Progress
from support.images.kit import CACHE, PACKAGE, ROOT, digest_of

RECIPE = ROOT / "images/build-tools"
_FOLDER = CACHE / "engine"
_CONTAINERS = """\
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
"""
_STORAGE = f"""\
[storage]
driver = "vfs"
graphroot = "{_FOLDER}/graph"
runroot = "{_FOLDER}/run"
"""


def build_tools_archive() -> Path:
    """Return the OCI archive of build tools, making it when its recipe has changed."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    sources = [
        RECIPE / LOCK_NAME,
        PACKAGE / "images/build_tools_image.py",
        PACKAGE / "oci/pack.py",
        PACKAGE / "oci/tarwrite.py",
    ]
    path = _FOLDER / f"build-tools-{digest_of(sources)}.oci.tar"
    if not path.exists():
        for old in _FOLDER.glob("build-tools-*"):
            old.unlink()
        pack_build_tools(path, lock=RECIPE / LOCK_NAME, cache=CACHE / "debs", progress=Progress())
    return path


def program(path: Path, script: str) -> str:
    """Write a program and return its path."""
    path.write_text(f"#!/bin/sh\n{script}")
    path.chmod(0o755)
    return str(path)


def environment() -> dict[str, str]:
    """Return the variables with which podman uses a store of the tests' own, and asks for nothing that root may
    lack.
    """
    _FOLDER.mkdir(parents=True, exist_ok=True)
    settings = {"CONTAINERS_CONF": _FOLDER / "containers.conf", "CONTAINERS_STORAGE_CONF": _FOLDER / "storage.conf"}
    for path, text in zip(settings.values(), (_CONTAINERS, _STORAGE), strict=True):
        atomic_write(path, text)
    return {name: str(path) for name, path in settings.items()}


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Return a podman that works wherever root is; what the tests start uses it too."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment().items():
            patch.setenv(name, value)
        yield Engine("podman", rootless=False)


@pytest.fixture(scope="session")
def build_tools(engine: Engine) -> Engine:
    """Return an engine that has the image `DEVELOPMENT` of the recipe as it is now, smoke runs included."""
    with locked(CACHE / "engine.lock", limit=math.inf):
        archive = build_tools_archive()
        loaded = archive.with_suffix(".loaded")
        if not loaded.exists() or loaded.read_text() != engine.image_id(DEVELOPMENT):
            install(engine, archive)
            loaded.write_text(engine.image_id(DEVELOPMENT) or "")
    return engine
