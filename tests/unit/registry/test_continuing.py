"""A pull that goes on where an earlier one was cut, and two that want the same blob."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shed.errors import DataError, UnavailableError
from shed.images.pull import pull_image
from shed.images.push import push_image
from shed.oci.digest import Digest
from shed.oci.partial import partial_path, partials
from shed.oci.store import LayoutStore
from shed.progress import Event, Progress, Stop, WarningEvent
from support.images.minted import digest_of, mint_small
from support.registries.scripted_registry import Handler, Registry

KEPT = 5000


@pytest.fixture
def reference(registry: Registry, tmp_path: Path) -> str:
    """An image in the registry."""
    store = LayoutStore(tmp_path / "images")
    mint_small(store, tmp_path, "app")
    push_image(store, "app", f"{registry.address}/me/app:v1")
    push_image(store, "app", f"{registry.address}/me/app:v2")
    registry.seen.clear()
    return f"{registry.address}/me/app:v1"


@pytest.fixture
def root(reference: str, tmp_path: Path) -> Digest:
    """Its root file system."""
    store = LayoutStore(tmp_path / "images")
    return Digest(store.read_manifest(digest_of(store, "app")).annotations["io.shed.rootfs.erofs.digest"])


@pytest.fixture
def other(tmp_path: Path) -> LayoutStore:
    """An empty store."""
    return LayoutStore(tmp_path / "other")


def keep(store: LayoutStore, digest: Digest, data: bytes) -> None:
    """Leave `data` as if a pull of the blob had been cut."""
    with pytest.raises(UnavailableError), store.partial(digest, Stop()) as blob:
        blob.write(data)
        raise UnavailableError("cut")


def ranges(registry: Registry, digest: Digest) -> list[str]:
    """Return what was asked for of the blob, one entry per request."""
    return [seen.headers.get("range", "all") for seen in registry.requests("GET", digest)]


def test_the_rest_is_fetched(registry: Registry, reference: str, root: Digest, other: LayoutStore) -> None:
    """From the byte where the other pull ended; the result counts what came now."""
    data = registry.blobs[root]
    keep(other, root, data[:KEPT])
    pulled = pull_image(other, reference)
    assert ranges(registry, root) == [f"bytes={KEPT}-"]
    assert other.blob_path(root).read_bytes() == data
    assert pulled.fetched_bytes == len(data) - KEPT + sum(map(len, (b"kernel", b"initrd", b"runtime")))


def test_a_registry_without_ranges(registry: Registry, reference: str, root: Digest, other: LayoutStore) -> None:
    """It sends all of it, and what is here is skipped."""
    registry.ranges = False
    keep(other, root, registry.blobs[root][:KEPT])
    pull_image(other, reference)
    assert other.intact(root)


def test_all_of_it_is_here(registry: Registry, reference: str, root: Digest, other: LayoutStore) -> None:
    """Killed between the last byte and the name: nothing is asked for, of which no registry has a range."""
    keep(other, root, registry.blobs[root])
    pull_image(other, reference)
    assert ranges(registry, root) == []
    assert other.intact(root)


@pytest.mark.parametrize("more", [0, 1 << 20], ids=["wrong", "longer"])
def test_what_was_kept_is_something_else(
    registry: Registry, reference: str, root: Digest, other: LayoutStore, more: int
) -> None:
    """After a power cut: it is told, and all of it is fetched; what is too long is not even tried."""
    keep(other, root, b"\0" * (KEPT + more))
    told: list[Event] = []
    pull_image(other, reference, progress=Progress(told.append))
    assert other.intact(root)
    assert ranges(registry, root) == (["all"] if more else [f"bytes={KEPT}-", "all"])
    warnings = [event.message for event in told if isinstance(event, WarningEvent)]
    assert len(warnings) == (0 if more else 1)
    assert all("is damaged: all of it is fetched again" in text for text in warnings)


def test_a_registry_that_lies_leaves_nothing(
    registry: Registry, reference: str, root: Digest, other: LayoutStore
) -> None:
    """Bytes that are not the blob are not kept for the next try."""
    registry.blobs[root] = b"x" * len(registry.blobs[root])
    with pytest.raises(DataError, match="digest mismatch"):
        pull_image(other, reference)
    assert root not in partials(other.blobs)


@pytest.mark.parametrize("tag", ["v1", "v2"])
def test_two_pulls_of_one_blob(registry: Registry, reference: str, root: Digest, other: LayoutStore, tag: str) -> None:
    """By the same reference or another: one fetches it, the other waits and finds it."""
    reached, go = threading.Event(), threading.Event()

    def slow(handler: Handler) -> bool:
        reached.set()
        assert go.wait(60)
        return False

    registry.once("GET", root, slow)
    second = LayoutStore(other.root)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(pull_image, other, reference)
        assert reached.wait(60)
        waiting = pool.submit(pull_image, second, reference.replace("v1", tag), tag="again")
        threading.Timer(0.5, go.set).start()
        results = [first.result(60), waiting.result(60)]
    assert ranges(registry, root) == ["all"]
    assert [result.fetched for result in results] == [4, 0]
    assert results[1].fetched_bytes == 0
    assert digest_of(second, "again") == results[0].digest
    assert not partial_path(other.blobs, root).exists()
