"""`shed image save` and `shed image load` as their users meet them, and other people's tools on the file between them."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from support.kit import copy_store
from support.minted import mint_small

SHED = [sys.executable, "-m", "shed.cli.main", "image"]


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    """The store of one user, with an image."""
    store = LayoutStore(tmp_path / "mine/images")
    mint_small(store, tmp_path)
    return store


def shed(store: LayoutStore, *words: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run a command about images as the user that `store` belongs to."""
    environment = {**os.environ, "SHED_DATA_DIR": str(store.root.parent)}
    return subprocess.run([*SHED, *words], input=stdin or b"", capture_output=True, env=environment, timeout=120, check=False)


def succeed(store: LayoutStore, *words: str | Path, stdin: bytes | None = None) -> bytes:
    """Run a command that must succeed, and return what it prints."""
    done = shed(store, *words, stdin=stdin)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def others(tmp_path: Path) -> LayoutStore:
    """Return the empty store of another user."""
    return LayoutStore(tmp_path / "theirs/images")


def blobs(store: LayoutStore) -> list[str]:
    """Return the names of all blobs, staged ones too."""
    return sorted(path.name for path in store.blobs.iterdir() if path.suffix != ".lock") if store.blobs.exists() else []


def skopeo(*words: str | Path) -> str:
    """Run skopeo, which must succeed."""
    return subprocess.run(["skopeo", *words], capture_output=True, text=True, timeout=60, check=True).stdout


def test_there_and_back(store: LayoutStore, tmp_path: Path) -> None:
    """By a file and by a pipe: the same bytes, the same name and digest, and no temporary file beside them."""
    path = tmp_path / "out/base.tar"
    path.parent.mkdir()
    tag = store.tag("base")
    assert tag is not None
    assert succeed(store, "save", "base", "-o", path).startswith(f"saved base ({tag.digest[:19]}) to {path} (".encode())
    assert succeed(store, "save", "base", "-o", "-") == path.read_bytes()
    assert os.listdir(path.parent) == ["base.tar"]
    theirs = others(tmp_path)
    assert succeed(theirs, "load", "-i", path) == f"loaded base ({tag.digest[:19]})\n".encode()
    assert blobs(theirs) == blobs(store)
    again = json.loads(succeed(theirs, "load", "--json", stdin=path.read_bytes()))
    assert again["images"] == [{"name": "base", "digest": tag.digest, "layers": True}]


def test_what_is_written_first(store: LayoutStore, tmp_path: Path) -> None:
    """Marker and index, so that a stream can be understood from its start; every blob once."""
    succeed(store, "save", "base", "base", "-o", tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as archive:
        names = archive.getnames()
    assert names[:2] == ["oci-layout", "index.json"]
    assert len(names) == len(set(names))


def test_skopeo_takes_all_of_it_along(store: LayoutStore, tmp_path: Path) -> None:
    """It shows the image, and what it copies to a layout and back can be loaded from either."""
    path = tmp_path / "base.tar"
    tag = store.tag("base")
    assert tag is not None
    succeed(store, "save", "base", "-o", path)
    assert json.loads(skopeo("inspect", f"oci-archive:{path}"))["Architecture"] == "amd64"
    copy = ("copy", "--all", "--preserve-digests")
    skopeo(*copy, f"oci-archive:{path}", f"oci:{tmp_path}/layout:base")
    skopeo(*copy, f"oci:{tmp_path}/layout:base", f"oci-archive:{tmp_path}/back.tar:base")
    for source in ("layout", "back.tar"):
        theirs = others(tmp_path)
        assert succeed(theirs, "load", "-i", tmp_path / source) == f"loaded base ({tag.digest[:19]})\n".encode()
        assert blobs(theirs) == blobs(store)
        shutil.rmtree(theirs.root)


@pytest.mark.parametrize("command", ["save", "load"])
def test_killed_at_any_moment(store: LayoutStore, tmp_path: Path, command: str) -> None:
    """Either the whole thing is there or nothing under its name; the next run works and leaves only what belongs."""
    noise = store.ingest(random.Random(1).randbytes(1 << 20) for _ in range(24))
    bulky(store, tmp_path, noise)
    path = tmp_path / "bulky.tar"
    succeed(store, "save", "bulky", "-o", path)
    whole = path.read_bytes()
    theirs = others(tmp_path)
    environment = {**os.environ, "SHED_DATA_DIR": str((store if command == "save" else theirs).root.parent)}
    words = [*SHED, "save", "bulky", "-o", str(path)] if command == "save" else [*SHED, "load", "-i", str(path)]
    for delay in (0.15, 0.25, 0.3, 0.35, 0.4, 0.5):
        if command == "save":
            path.unlink(missing_ok=True)
        with subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(delay)  # any moment will do
            process.send_signal(signal.SIGKILL)
        if command == "save":
            assert not path.exists() or path.read_bytes() == whole
        elif (tag := theirs.tag("bulky")) is not None:
            assert set(blobs(theirs)) >= set(blobs(store)) - {"kit.json"}
            assert theirs.read_manifest(tag.digest)
    if command == "load":
        succeed(theirs, "load", "-i", path)
        assert not [name for name in blobs(theirs) if name.startswith(".")]
    else:
        succeed(store, "save", "bulky", "-o", path)
        assert path.read_bytes() == whole


def test_ended_by_an_interrupt(store: LayoutStore, tmp_path: Path) -> None:
    """A save that waits for its reader leaves no file; it says that it was interrupted."""
    noise = store.ingest(random.Random(1).randbytes(1 << 20) for _ in range(24))
    bulky(store, tmp_path, noise)
    environment = {**os.environ, "SHED_DATA_DIR": str(store.root.parent)}
    words = [*SHED, "save", "bulky", "-o", "-"]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1000)
        process.send_signal(signal.SIGINT)
        process.stdout.close()
        assert process.wait(30) == 130
        assert process.stderr.read().endswith(b"interrupted\n")
