"""`shed image build` of one archive, again: by others, elsewhere, and after crashes; always the same image."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shed.images.bootkit.build import save_kit
from shed.oci.store import LayoutStore
from support.images.kit import archive
from support.images.minted import LAYER, small_kit
from support.layers.tars import Image, file, tar

MOMENTS = int(os.environ.get("SHED_TEST_KILLS", "20"))
"""How often a build is killed."""
BUILD = ["image", "build", "--json", "-n", "dev", "--from-oci-archive"]
AS_SOMEBODY = """
import importlib, os, pkgutil, sys
import shed.cli, shed.client, shed.config, shed.erofs, shed.images, shed.oci, shed.terminal
for part in (shed.cli, shed.client, shed.config, shed.erofs, shed.images, shed.oci, shed.terminal):
    for module in pkgutil.walk_packages(part.__path__, part.__name__ + "."):
        importlib.import_module(module.name)
user, umask, *sys.argv[1:] = sys.argv[1:]
os.umask(int(umask, 8))
if int(user) != os.geteuid():
    os.setgroups([])
    os.setgid(int(user))
    os.setuid(int(user))
sys.exit(shed.cli.main.main())
"""
"""Becomes another user when all is imported: that one may not reach where the code is."""


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder that every user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="shed-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def new_store(folder: Path) -> LayoutStore:
    """Make a store with a boot kit in ``folder/images``."""
    store = LayoutStore(folder / "images")
    save_kit(store, small_kit(store))
    return store


SETTINGS = [
    (0, "022", {"LANG": "C", "TZ": "UTC", "HOME": "/"}),
    (
        0,
        "077",
        {
            "LANG": "tr_TR.UTF-8",
            "LC_ALL": "tr_TR.UTF-8",
            "TZ": "Asia/Kathmandu",
            "HOME": "/nonexistent",
            "PYTHONHASHSEED": "7",
        },
    ),
    (65534, "077", {"LC_ALL": "C", "TZ": "America/St_Johns", "HOME": "/nonexistent", "PYTHONHASHSEED": "9"}),
]
"""User, umask and environment."""


@pytest.mark.slow
def test_everybody_gets_the_same_image(open_path: Path) -> None:
    """Another user, folder, zone, language, umask and home: equal manifests, byte for byte."""
    found = []
    for number, (user, umask, env) in enumerate(SETTINGS):
        user = user if os.geteuid() == 0 else os.geteuid()  # noqa: PLW2901  only root can become somebody else
        folder = open_path / f"place {number}"
        folder.mkdir()
        store = new_store(folder / "data")
        shutil.copyfile(archive("busybox"), folder / f"{number}.tar")
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user, -1)
        command = [sys.executable, "-c", AS_SOMEBODY, str(user), umask, *BUILD, f"{number}.tar"]
        environment = {"PATH": os.environ["PATH"], "SHED_DATA_DIR": str(folder / "data"), **env}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        found.append(store.read_bytes(result["digest"]))
        assert store.blob_path(result["root_digest"]).stat().st_uid == user
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
def test_a_kill_at_any_moment(tmp_path: Path) -> None:
    """Twenty-five times: the store is whole, the next build gives the same image, and nothing else is left."""
    source = Image(LAYER, tar(file("random", os.urandom(6 << 20)), file("zeros", bytes(6 << 20)))).archive(
        tmp_path / "a.tar"
    )
    command = [sys.executable, "-m", "shed.cli.main", *BUILD, str(source)]

    def build(folder: Path) -> Any:
        done = subprocess.run(
            command, env=os.environ | {"SHED_DATA_DIR": str(folder)}, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    new_store(tmp_path / "wanted")
    started = time.monotonic()
    digest = build(tmp_path / "wanted")["digest"]
    length = time.monotonic() - started
    wanted = contents(LayoutStore(tmp_path / "wanted/images"))
    killed = 0
    for number in range(MOMENTS):
        folder = tmp_path / str(number)
        store = new_store(folder)
        moment = random.uniform(length / 4, length)  # before that, Python starts
        with subprocess.Popen(
            command, env=os.environ | {"SHED_DATA_DIR": str(folder)}, stdout=subprocess.DEVNULL
        ) as process:
            try:
                process.wait(moment)
                length = moment  # the machine has less to do than it had
            except subprocess.TimeoutExpired:
                process.kill()
                killed += 1
        assert contents(store).items() <= wanted.items(), moment
        assert {entry.digest for entry in store.index().manifests} <= {digest}, moment
        assert build(folder)["digest"] == digest, moment
        assert contents(store) == wanted, moment
        assert list(store.blobs.glob(".*.tmp")) == [], moment
        shutil.rmtree(folder)
    assert killed


def contents(store: LayoutStore) -> dict[str, object]:
    """Return blobs, index and tags, everything verified; what is in the index is there, and what a tag names is in the
    index.
    """
    entries = store.index().manifests
    for entry in entries:
        manifest = store.read_manifest(entry.digest)
        for digest in (manifest.config.digest, *(layer.digest for layer in manifest.layers)):
            store.verify(digest, again=True)
    blobs = store.blob_digests()
    for digest in blobs:
        store.verify(digest, again=True)
    names = {name: store.tag(name) for name in store.tag_names()}
    assert {tag.digest for tag in names.values() if tag} <= {entry.digest for entry in entries}
    return {**dict.fromkeys(blobs, True), **{f"tag {name}": tag and tag.digest for name, tag in names.items()}}
