"""`shed image save` and `shed image load` as their users meet them, and other people's tools on the file between
them.
"""

from __future__ import annotations

import json
import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from shed.images.annotations import KERNEL_KEY
from shed.images.resolve import resolve_image
from shed.oci.store import LayoutStore
from support.images.minted import mint_sound, variant
from support.layers.tars import file, tar
from support.vms.machine import Machine

NOISE = tar(file("noise", random.Random(1).randbytes(24 << 20)))
"""A layer that cannot be compressed, so that there is something to do."""
SHED = [sys.executable, "-m", "shed.cli.main", "image"]


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    """The store of one user, with an image."""
    store = LayoutStore(tmp_path / "mine/images")
    mint_sound(store, tmp_path)
    return store


def shed(store: LayoutStore, *words: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run a command about images as the user that `store` belongs to."""
    environment = {**os.environ, "SHED_DATA_DIR": str(store.root.parent)}
    return subprocess.run(
        [*SHED, *words], input=stdin or b"", capture_output=True, env=environment, timeout=120, check=False
    )


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
    assert list(path.parent.iterdir()) == [path]
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
    mint_sound(store, tmp_path, "bulky", NOISE)
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
            assert resolve_image(theirs, "bulky", verify=True, trusted=None).digest == tag.digest
    if command == "load":
        succeed(theirs, "load", "-i", path)
        assert not [name for name in blobs(theirs) if name.startswith(".")]
    else:
        succeed(store, "save", "bulky", "-o", path)
        assert path.read_bytes() == whole


def test_ended_by_an_interrupt(store: LayoutStore, tmp_path: Path) -> None:
    """A save that waits for its reader leaves no file; it says that it was interrupted."""
    mint_sound(store, tmp_path, "bulky", NOISE)
    environment = {**os.environ, "SHED_DATA_DIR": str(store.root.parent)}
    words = [*SHED, "save", "bulky", "-o", "-"]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1000)
        process.send_signal(signal.SIGINT)
        process.stdout.close()
        assert process.wait(60) == 130
        assert process.stderr.read().endswith(b"interrupted\n")


def test_memory(store: LayoutStore, tmp_path: Path) -> None:
    """A blob of 300 MB goes through either in pieces."""
    kernel = store.ingest(bytes(1 << 20) for _ in range(300))
    variant(store, "large", {KERNEL_KEY: kernel})
    theirs = others(tmp_path)
    measure = (
        "import resource as r, subprocess as s, sys; s.run(sys.argv[1:], check=True); "
        "print(r.getrusage(r.RUSAGE_CHILDREN).ru_maxrss)"
    )
    runs: list[tuple[LayoutStore, list[str | Path]]] = [
        (store, ["save", "large", "-o", tmp_path / "a.tar"]),
        (theirs, ["load", "-i", tmp_path / "a.tar"]),
    ]
    for owner, words in runs:
        environment = {**os.environ, "SHED_DATA_DIR": str(owner.root.parent)}
        done = subprocess.run(
            [sys.executable, "-c", measure, *SHED, *words],
            capture_output=True,
            env=environment,
            timeout=120,
            check=True,
        )
        assert int(done.stdout.split()[-1]) < 100_000  # KiB
    assert resolve_image(theirs, "large", trusted=None).kernel.stat().st_size == 300 << 20


def test_a_terminal_gets_no_image(store: LayoutStore) -> None:
    """Neither as output nor as input."""
    terminal, other = pty.openpty()
    environment = {**os.environ, "SHED_DATA_DIR": str(store.root.parent)}
    try:
        for words, message in (
            (["save", "base", "-o", "-"], b"not for a terminal"),
            (["load"], b"no file on standard input"),
        ):
            done = subprocess.run(
                [*SHED, *words],
                stdin=other,
                stdout=other,
                stderr=subprocess.PIPE,
                env=environment,
                timeout=60,
                check=False,
            )
            assert done.returncode == 2
            assert message in done.stderr
    finally:
        os.close(terminal)
        os.close(other)


def test_a_server_verifies_and_names(tmp_path: Path) -> None:
    """By the server or in the command's own process: the same result; a damaged image ends in one error that names the
    blob.
    """
    machine = Machine(tmp_path)
    store = LayoutStore(machine.data / "images")
    mint_sound(store, tmp_path)
    try:
        by_server, by_itself = (
            json.loads(machine.shed("image", "verify", "base", "--deep", "--json", *how)) for how in ([], ["--local"])
        )
        assert by_server.pop("timings").keys() == by_itself.pop("timings").keys()
        assert by_server == by_itself
        assert by_server["valid"]
        assert "contents" in machine.shed("image", "verify", "base", "--deep")
        assert machine.shed("image", "tag", "base", "stable").startswith("stable is sha256:")
        assert machine.shed("image", "history", "stable").splitlines()[0].split() == [
            "CREATED",
            "CREATED",
            "BY",
            "SIZE",
            "COMMENT",
        ]
        kernel = resolve_image(store, "base", trusted=None).kernel
        kernel.chmod(0o644)
        kernel.write_bytes(b"KERNEL")
        done = machine.try_shed("image", "verify", "stable")
        assert done.returncode == 1
        assert b"error: stable is damaged: kernel blob: blob sha256:" in done.stderr
        assert machine.try_shed("image", "verify", "stable", "--json").returncode == 1
        assert machine.try_shed("image", "verify", "nothing").stderr.startswith(b"error: no image is called 'nothing'")
    finally:
        machine.end()
