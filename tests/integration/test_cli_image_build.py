"""`shed image build` as its user meets it: wrong archives, an interrupt, a kill; the store stays whole, and the next
build works.
"""

from __future__ import annotations

import array
import fcntl
import json
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from shed.images.bootkit.build import save_kit
from shed.oci import media
from shed.oci.store import LayoutStore
from support.images.minted import LAYER, small_kit
from support.layers.tars import Image, file, tar
from support.waiting import wait_until

BUILD = [sys.executable, "-m", "shed.cli.main", "image", "build", "-n", "base", "--from-oci-archive"]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LayoutStore:
    """The store that `shed` uses, with a boot kit."""
    monkeypatch.setenv("SHED_DATA_DIR", str(tmp_path))
    store = LayoutStore(tmp_path / "images")
    save_kit(store, small_kit(store))
    return store


def build(source: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Build the image ``base`` from `source`."""
    return subprocess.run([*BUILD, source, *options], capture_output=True, text=True, timeout=60, check=False)


def blobs(store: LayoutStore) -> list[str]:
    """Return the names of all blobs, staged ones too."""
    return sorted(path.name for path in store.blobs.iterdir() if path.suffix != ".lock")


def zstd_layer(path: Path) -> Path:
    """Write an archive whose layer is compressed with zstd."""
    image = Image(LAYER)
    image.manifest["layers"] = [image.blob(zstandard.compress(LAYER), media.LAYER + "+zstd")]
    return image.archive(path)


def written(data: bytes) -> Callable[[Path], Path]:
    """Return what writes a file of these bytes."""

    def write(path: Path) -> Path:
        path.write_bytes(data)
        return path

    return write


def folder(path: Path) -> Path:
    """Make an empty folder."""
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("make", "code", "message"),
    [
        (written(tar(file("manifest.json", b"[]"), file("a/layer.tar"))), 1, "holds no image"),
        (written(b""), 1, "is empty"),
        (written(b"hello\n" * 200), 1, "is not a readable tar archive"),
        (folder, 1, "is not an OCI image: it has no index.json"),
        (lambda path: path, 1, "does not exist"),
        (lambda path: Image(LAYER, architecture="arm64").archive(path), 2, "the image is for linux/arm64"),
        (
            lambda path: written(Image(LAYER).archive(path).read_bytes()[:-9000])(path),
            1,
            "is not a readable tar archive",
        ),
        (lambda path: Image(tar(file("../x"))).archive(path), 1, "leads out of the root"),
    ],
    ids=["docker", "empty", "text", "folder", "nothing", "platform", "cut", "hostile"],
)
def test_what_cannot_be_built(
    store: LayoutStore, tmp_path: Path, make: Callable[[Path], Path], code: int, message: str
) -> None:
    """One sentence and one hint for people, one object for machines, no traceback, and the store as it was."""
    before = blobs(store)
    source = make(tmp_path / "source")
    done = build(source)
    assert (done.returncode, done.stdout) == (code, "")
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("error: ")
    assert message in error
    assert hint.startswith("hint: ")
    told = json.loads(build(source, "--json").stderr)["error"]
    assert f"error: {told['message']}" == error
    assert (blobs(store), store.tag_names()) == (before, [])


@pytest.mark.parametrize("make", [lambda path: Image(LAYER).layout(path), zstd_layer], ids=["folder", "zstd"])
def test_what_can_be_built(store: LayoutStore, tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """A layout folder and layers of any compression; built twice, the second time is quick to say so."""
    source = make(tmp_path / "source")
    assert build(source).stdout.startswith("built base in ")
    assert build(source).stdout.startswith("base is up to date")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_build_that_is_ended(store: LayoutStore, tmp_path: Path, number: int, code: int) -> None:
    """In the middle of its input: no image is there, and the next build works."""
    data = Image(LAYER).archive(tmp_path / "a.tar").read_bytes()
    before = blobs(store)
    with subprocess.Popen([*BUILD, "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        assert process.stderr.readline() == b"reading stdin\n"
        process.stdin.write(data[:4000])
        process.stdin.flush()
        _wait_until_read(process.stdin.fileno())
        process.send_signal(number)
        assert process.wait(60) == code
        assert process.stderr.read() == (b"interrupted\n" if number == signal.SIGINT else b"")
    assert (blobs(store), store.tag_names()) == (before, [])
    assert build(tmp_path / "a.tar").returncode == 0
    assert store.tag_names() == ["base"]


def _wait_until_read(pipe: int) -> None:
    """Return when somebody has read all that is in the pipe."""

    def waiting() -> int:
        count = array.array("i", [1])
        fcntl.ioctl(pipe, termios.FIONREAD, count)
        return count[0]

    wait_until(lambda: waiting() == 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--from", "./x"], "is a path"), (["nowhere"], "nowhere is not a folder")],
)
def test_wrong_words_are_told_before_the_kit_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    """Who types something wrong is told that, not to make a kit first."""
    monkeypatch.setenv("SHED_DATA_DIR", str(tmp_path))
    done = subprocess.run([*BUILD[:-1], *words], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
