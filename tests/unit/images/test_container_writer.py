"""What goes wrong between us and a container engine: each is one clear error, and nothing is left behind.

The engines here are small programs, for failures alone; tests/integration/test_two_writers.py uses a real one.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shed.errors import DataError, NotFoundError, ShedError, StorageError, UnavailableError
from shed.images.engine import Engine, find_engine
from shed.images.mint import mint_archive
from shed.images.writers import ContainerWriter
from shed.oci.store import LayoutStore
from shed.run import ToolError
from support.images.minted import LAYER, small_kit
from support.layers.tars import Image
from support.tools.engine import program

IMAGE = "sha256:" + "1" * 64
HELPFUL = f"""
case "$1 $*" in
    "image "*) echo {IMAGE};;
    "run "*--version*) echo 'mkfs.erofs (erofs-utils) 1.9.4';;
    "run "*) @;;
esac
"""
"""An engine that has the image, and does ``@`` when an image is to be written."""


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    return LayoutStore(tmp_path / "images")


def fails(store: LayoutStore, tmp_path: Path, action: str, error: type[ShedError], match: str) -> ShedError:
    """Mint with an engine that does `action`, which must fail, and leave the store as it was."""
    kit = small_kit(store)
    archive = Image(LAYER).archive(tmp_path / "archive.tar")
    writer = ContainerWriter(
        "dev", engine=Engine(program(tmp_path / "engine", HELPFUL.replace("@", action)), rootless=False)
    )
    before = sorted(store.blobs.iterdir())
    with pytest.raises(error, match=match) as caught:
        mint_archive(store, archive, "base", kit=kit, writer=writer)
    assert sorted(path for path in store.blobs.iterdir() if path.suffix != ".lock" or path in before) == before
    assert store.tag_names() == []
    return caught.value


def test_what_the_tool_says_last_is_told(store: LayoutStore, tmp_path: Path) -> None:
    """With how to run it by hand."""
    error = fails(
        store,
        tmp_path,
        "echo 'long story' >&2; echo 'Fatal error: no such luck' >&2; exit 1",
        ToolError,
        "no such luck",
    )
    assert "run it by hand" in (error.hint or "")


def test_no_space_for_the_tool_is_no_space(store: LayoutStore, tmp_path: Path) -> None:
    """It is a `StorageError`, which says how much space it may take."""
    error = fails(
        store,
        tmp_path,
        "echo '<E> erofs: failed to write: No space left on device' >&2; exit 1",
        StorageError,
        "No space left",
    )
    assert re.search(r"it may take \d+ MiB of space in .*: free some", error.hint or "")


@pytest.mark.parametrize(
    "action", ["true", "for word; do case $word in */images/*) echo text > ${word%%:*}/rootfs.erofs; esac; done"]
)
def test_success_without_an_image_is_refused(store: LayoutStore, tmp_path: Path, action: str) -> None:
    """An exit code of 0 is not believed."""
    fails(store, tmp_path, action, DataError, "wrote no EROFS image")


def test_no_space_for_the_tar(store: LayoutStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without room, here: a limit on the size of files."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    kit = small_kit(store)
    archive = Image(LAYER).archive(tmp_path / "archive.tar")
    writer = ContainerWriter(
        "dev", engine=Engine(program(tmp_path / "engine", HELPFUL.replace("@", "true")), rootless=False)
    )
    monkeypatch.setattr("shed.images.mint.verify_root", lambda *_: pytest.fail("it came too far"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (12 << 10, hard))
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(StorageError, match="cannot write"):
            mint_archive(store, archive, "base", kit=kit, writer=writer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_an_image_that_is_not_here(tmp_path: Path) -> None:
    """The hint says how to make it; nothing is pulled that no registry has."""
    engine = Engine(program(tmp_path / "engine", 'echo "$@" >> $0.log; exit 1'), rootless=False)
    with pytest.raises(NotFoundError, match="has no image shed-build-tools:dev") as caught:
        ContainerWriter("dev", engine=engine)
    assert (caught.value.code, caught.value.hint) == ("NO_BUILD_TOOLS", "make it: make build-tools")
    assert "pull" not in (tmp_path / "engine.log").read_text()


def test_a_release_is_pulled(tmp_path: Path) -> None:
    """Only when the engine does not have it."""
    script = f'[ "$1" != pull ] || {{ echo "$@" > $0.pulled; exit; }}\n[ -e $0.pulled ] || exit 1\n{HELPFUL}'
    writer = ContainerWriter("0.5.2", engine=Engine(program(tmp_path / "engine", script), rootless=False))
    assert (tmp_path / "engine.pulled").read_text() == "pull --quiet ghcr.io/charliek/shed-build-tools:v0.5.2\n"
    assert writer.name.startswith(f"erofs-utils/1.9.4 ghcr.io/charliek/shed-build-tools:v0.5.2@{IMAGE} --quiet -b4096 ")


def test_a_release_that_cannot_be_pulled(tmp_path: Path) -> None:
    """The engine's own words are told."""
    engine = Engine(program(tmp_path / "engine", "echo 'manifest unknown' >&2; exit 125"), rootless=False)
    with pytest.raises(ToolError, match="manifest unknown"):
        ContainerWriter("0.5.2", engine=engine)


def test_an_image_of_something_else(tmp_path: Path) -> None:
    """It is run once, and what it says is told."""
    engine = Engine(program(tmp_path / "engine", f"[ $1 = run ] && echo BusyBox || echo {IMAGE}"), rootless=False)
    with pytest.raises(DataError, match="is not the one of erofs-utils: 'BusyBox"):
        ContainerWriter("dev", engine=engine)


def test_a_name_with_a_digest_needs_no_other(tmp_path: Path) -> None:
    """The digest is not written twice."""
    reference = f"example.org/tools@sha256:{'2' * 64}"
    writer = ContainerWriter(reference, engine=Engine(program(tmp_path / "engine", HELPFUL), rootless=False))
    assert f" {reference} --quiet" in writer.name


def test_no_engine_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is named with its own reason."""
    monkeypatch.setenv("PATH", str(tmp_path))
    program(tmp_path / "docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    with pytest.raises(
        UnavailableError, match=r"Cannot connect to the Docker daemon; podman is not installed"
    ) as caught:
        find_engine()
    assert (caught.value.code, bool(caught.value.hint)) == ("NO_CONTAINER_ENGINE", True)


@pytest.mark.parametrize(
    ("name", "answer", "rootless", "user"),
    [
        ("docker", '["name=seccomp,profile=builtin","name=cgroupns"]', False, ["-u", f"{os.geteuid()}:{os.getegid()}"]),
        ("docker", '["name=seccomp,profile=builtin","name=rootless"]', True, ["-u", "0:0"]),
        ("podman", "false", False, ["-u", f"{os.geteuid()}:{os.getegid()}"]),
        ("podman", "true", True, ["--userns=keep-id", "-u", f"{os.geteuid()}:{os.getegid()}"]),
    ],
)
def test_files_are_ours_with_every_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, answer: str, rootless: bool, user: list[str]
) -> None:
    """What a rootless engine calls a user is another one outside; docker's root is us, and podman can keep our
    number.
    """
    monkeypatch.setenv("PATH", str(tmp_path))
    program(tmp_path / name, f"[ $1 != info ] || {{ echo '{answer}'; exit; }}\nprintf '%s\\n' \"$@\"")
    engine = find_engine()
    assert engine == Engine(name, rootless)
    words = engine.run("image", ["tool", "argument"], work=tmp_path).stdout.decode().split()
    assert [word for word in words if word in ("-u", "--userns=keep-id") or (":" in word and word[0].isdigit())] == user
    assert words[-4:] == ["--entrypoint", "tool", "image", "argument"]
    assert f"{tmp_path}:/shed/work" in words


def test_a_build_that_is_killed_leaves_what_the_next_one_removes(store: LayoutStore, tmp_path: Path) -> None:
    """Killed in the middle; the next build removes what it left."""
    engine = program(tmp_path / "engine", HELPFUL.replace("@", "echo $$ > $0.new; mv $0.new $0.pid; exec sleep 1000"))
    archive = Image(LAYER).archive(tmp_path / "archive.tar")
    code = (
        "import sys; from pathlib import Path; from shed.images.engine import Engine; from shed.images.mint import "
        "mint_archive\n"
        "from shed.images.writers import ContainerWriter; from shed.oci.store import LayoutStore\n"
        "from support.images.minted import small_kit\nstore = LayoutStore(Path(sys.argv[1]))\n"
        "writer = ContainerWriter('dev', engine=Engine(sys.argv[3], rootless=False))\n"
        "mint_archive(store, Path(sys.argv[2]), 'base', kit=small_kit(store), writer=writer)"
    )
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", code, store.root, archive, engine], env=env) as process:
        while not (tmp_path / "engine.pid").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    os.kill(int((tmp_path / "engine.pid").read_text()), signal.SIGKILL)
    left = list(store.blobs.glob(".staging-*"))
    assert any((path / "rootfs.tar").exists() for path in left)
    assert store.tag_names() == []
    mint_archive(store, archive, "base", kit=small_kit(store))
    assert list(store.blobs.glob(".staging-*")) == []
