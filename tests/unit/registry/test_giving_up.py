"""Work that is given up while a registry stalls ends at once, and leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shed.errors import UnavailableError
from shed.images.mint import mint_archive
from shed.images.pull import pull_image
from shed.images.push import push_image
from shed.oci.store import LayoutStore
from shed.progress import Stop
from support.images.minted import LAYER, small_kit, without_sizes
from support.layers.tars import Image
from support.registries.scripted_registry import Handler, Registry

Stall = Callable[[str, str], threading.Event]


@pytest.fixture
def stall(registry: Registry) -> Iterator[Stall]:
    """Return what makes the registry stand still in a request, and tells when it does."""
    over = threading.Event()

    def make(method: str, part: str) -> threading.Event:
        reached = threading.Event()

        def fault(handler: Handler) -> bool:
            reached.set()
            over.wait(250)
            return handler.end()

        registry.once(method, part, fault, times=9)
        return reached

    yield make
    over.set()


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    """A store with the image ``app``."""
    store = LayoutStore(tmp_path / "images")
    mint_archive(store, Image(LAYER).archive(tmp_path / "a.tar"), "app", kit=small_kit(store))
    return store


@pytest.mark.parametrize(("method", "part"), [("GET", "manifests/v1"), ("HEAD", "blobs"), ("GET", "blobs")])
def test_a_pull(registry: Registry, store: LayoutStore, tmp_path: Path, stall: Stall, method: str, part: str) -> None:
    """Wherever it waits for the registry, which it asks for sizes when the manifest does not say them."""
    reference = f"{registry.address}/me/app:v1"
    if method == "HEAD":
        without_sizes(store, "app")
    push_image(store, "app", reference)
    reached, stop, other = stall(method, part), Stop(), LayoutStore(tmp_path / "other")
    with ThreadPoolExecutor(1) as pool:
        pull = pool.submit(pull_image, other, reference, stop=stop)
        assert reached.wait(60)
        stop.set()
        with pytest.raises(UnavailableError):
            pull.result(timeout=60)
    assert (other.tag_names(), other.index().manifests) == ([], ())
    assert not list(other.blobs.glob(".*.tmp"))


@pytest.mark.parametrize(("method", "part"), [("HEAD", "blobs"), ("PUT", "uploads"), ("PUT", "manifests")])
def test_a_push(registry: Registry, store: LayoutStore, stall: Stall, method: str, part: str) -> None:
    """Wherever it waits for the registry."""
    reached, stop = stall(method, part), Stop()
    with ThreadPoolExecutor(1) as pool:
        push = pool.submit(push_image, store, "app", f"{registry.address}/me/app:v1", stop=stop)
        assert reached.wait(60)
        stop.set()
        with pytest.raises(UnavailableError):
            push.result(timeout=60)
    assert "v1" not in registry.manifests


def test_an_interrupted_command(registry: Registry, store: LayoutStore, stall: Stall, tmp_path: Path) -> None:
    """Ctrl-C ends `shed image pull`, whatever the registry does."""
    reference = f"{registry.address}/me/app:v1"
    push_image(store, "app", reference)
    reached = stall("GET", "blobs")
    command = [sys.executable, "-m", "shed.cli.main", "image", "pull", reference, "--local"]
    environment = {"SHED_DATA_DIR": str(tmp_path / "data"), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        assert reached.wait(60)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr
        assert process.stderr.read().endswith(b"interrupted\n")
    assert not list((tmp_path / "data/images/blobs/sha256").glob("[.0-9a-f]*"))


def test_the_first_failure_stops_the_others(
    registry: Registry, store: LayoutStore, stall: Stall, tmp_path: Path
) -> None:
    """A blob that is refused does not wait for one that stalls."""
    reference = f"{registry.address}/me/app:v1"
    push_image(store, "app", reference)
    digests = store.read_manifest(store.tag("app").digest).annotations  # type: ignore[union-attr]
    reached = stall("GET", digests["io.shed.rootfs.erofs.digest"])

    def refuse(handler: Handler) -> bool:
        return reached.wait(60) and handler.error(404, "BLOB_UNKNOWN", "gone")

    registry.once("GET", digests["io.shed.kernel.digest"], refuse)
    other = LayoutStore(tmp_path / "other")
    with ThreadPoolExecutor(1) as pool, pytest.raises(Exception, match="lacks the kernel blob"):
        pool.submit(pull_image, other, reference).result(timeout=60)
    assert (other.tag_names(), other.index().manifests) == ([], ())
