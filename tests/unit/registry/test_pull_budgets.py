"""What a registry may make this machine take: not a byte more than is published, nothing too large, nothing of the
reserve.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from shed.budget import Limits
from shed.errors import DataError, ShedError, StorageError
from shed.images.annotations import ROOT_KEY, SIZE_KEYS, BootAnnotations
from shed.images.load import load_images
from shed.images.mint import mint, mint_archive
from shed.images.pull import pull_image
from shed.images.push import push_image
from shed.images.remote import open_remote
from shed.images.save import save_to_file
from shed.oci import media
from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest
from shed.oci.manifest import Index
from shed.oci.partial import partials
from shed.oci.store import LayoutStore
from shed.progress import BlobEvent, Event, Progress
from support.images.minted import LAYER, digest_of, mint_sound, small_kit, variant, without_sizes
from support.layers.tars import Image
from support.registries.hostile_registry import MOST, Flood
from support.registries.scripted_registry import Registry

HUGE = 1 << 50
LIMIT = Limits(max_image_size=4 << 20, disk_reserve=0)


@pytest.fixture
def made(tmp_path: Path) -> LayoutStore:
    """A store with the image ``app``."""
    store = LayoutStore(tmp_path / "images")
    mint_archive(store, Image(LAYER).archive(tmp_path / "a.tar"), "app", kit=small_kit(store))
    return store


@pytest.fixture
def other(tmp_path: Path) -> LayoutStore:
    """An empty store with a small limit."""
    return LayoutStore(tmp_path / "other", LIMIT)


def published(registry: Registry, made: LayoutStore, *, sizes: bool = True) -> tuple[str, Digest, int]:
    """Push ``app``; return its reference, and digest and size of its root."""
    if not sizes:
        without_sizes(made, "app")
    push_image(made, "app", f"{registry.address}/me/app:v1")
    root = BootAnnotations.parse(made.read_manifest(digest_of(made, "app")).annotations).root
    assert root
    registry.seen.clear()
    return f"{registry.address}/me/app:v1", root, made.size(root)


def nothing_left(store: LayoutStore, root: Digest) -> None:
    """Check that the store is as empty as before, but for sound blobs."""
    assert (store.tag_names(), store.index().manifests) == ([], ())
    assert root not in {*partials(store.blobs), *store.inventory()}


def test_sizes_are_published(registry: Registry, made: LayoutStore, other: LayoutStore) -> None:
    """Of all that the image boots from, so that the registry is not asked."""
    reference, _, _ = published(registry, made)
    boot = BootAnnotations.parse(made.read_manifest(digest_of(made, "app")).annotations)
    assert boot.sizes == {digest: made.size(digest) for digest in boot.blobs().values()}
    assert pull_image(other, reference).fetched == 4
    assert registry.requests("HEAD") == []


@pytest.mark.parametrize("sizes", [True, False], ids=["published", "of 0.5.2"])
def test_an_image_without_sizes_is_pulled_too(
    registry: Registry, made: LayoutStore, other: LayoutStore, *, sizes: bool
) -> None:
    """As versions up to 0.5.2 have published it: its digest is the same, and the registry says the sizes."""
    reference, _, _ = published(registry, made, sizes=sizes)
    assert pull_image(other, reference).digest == digest_of(made, "app")
    assert len(registry.requests("HEAD", "blobs")) == (0 if sizes else 4)


def test_not_a_byte_more_than_published(registry: Registry, made: LayoutStore, other: LayoutStore) -> None:
    """A registry that sends without end, and says so when it is asked, is cut off at the size in the manifest."""
    reference, root, size = published(registry, made)
    flood, told = Flood(), list[Event]()
    registry.once("HEAD", root, lambda handler: handler.answer(200, Content_Length=str(HUGE)), times=9)
    registry.once("GET", root, flood, times=9)
    with pytest.raises(DataError, match=f"has more than {size} bytes") as caught:
        pull_image(other, reference, progress=Progress(told.append))
    assert caught.value.code == "SIZE_MISMATCH"
    assert flood.ended.wait(60)
    nothing_left(other, root)
    assert max(event.current for event in told if isinstance(event, BlobEvent) and event.digest == root) <= size


def test_sizes_that_are_lies(registry: Registry, made: LayoutStore, other: LayoutStore) -> None:
    """A manifest and a registry that do not agree: refused before the body."""
    reference, root, size = published(registry, made)
    registry.once("GET", root, Flood({"Content-Length": str(HUGE)}))
    with pytest.raises(DataError, match=f"has {HUGE} bytes, expected {size}"):
        pull_image(other, reference)
    nothing_left(other, root)


@pytest.mark.parametrize("where", ["manifest", "registry"])
def test_a_huge_image_is_refused_before_its_first_byte(
    registry: Registry, made: LayoutStore, other: LayoutStore, where: str
) -> None:
    """Whoever says that it is huge."""
    if where == "manifest":
        made.publish(Descriptor(media.MANIFEST, digest_of(made, "app"), 1), "base")
        variant(made, "app", {SIZE_KEYS[ROOT_KEY]: str(HUGE)})
    reference, root, _ = published(registry, made, sizes=where == "manifest")
    registry.once("HEAD", root, lambda handler: handler.answer(200, Content_Length=str(HUGE)), times=9)
    with pytest.raises(DataError, match="the image has 1024 TiB; at most 4 MiB are allowed") as caught:
        pull_image(other, reference)
    assert (caught.value.code, "limits.max_image_size" in (caught.value.hint or "")) == ("IMAGE_TOO_LARGE", True)
    assert registry.requests("GET", "blobs/" + root) == []
    nothing_left(other, root)


def test_a_blob_whose_size_nobody_says(registry: Registry, made: LayoutStore, other: LayoutStore) -> None:
    """It ends at the limit, and what came of it is removed."""
    reference, root, _ = published(registry, made, sizes=False)
    flood = Flood()
    registry.once("HEAD", root, lambda handler: handler.answer(200, Content_Length="0"), times=9)
    registry.once("GET", root, flood, times=9)
    with pytest.raises(DataError, match="the image has more than 4 MiB"):
        pull_image(other, reference)
    assert flood.ended.wait(60)
    nothing_left(other, root)


def test_a_layer_of_no_bytes_that_has_some(registry: Registry, made: LayoutStore, other: LayoutStore) -> None:
    """Nothing is a size too."""
    reference, _, _ = published(registry, made)
    layer = made.read_manifest(digest_of(made, "app")).layers[0]
    data = registry.manifests[digest_of(made, "app")][1].replace(f'"size": {layer.size}'.encode(), b'"size": 0')
    registry.add_manifest("v1", data, media.MANIFEST)
    with pytest.raises(DataError, match="expected 0"):
        pull_image(other, reference, with_layers=True)
    nothing_left(other, layer.digest)


def test_the_reserve_stops_a_pull_before_its_first_byte(registry: Registry, made: LayoutStore, tmp_path: Path) -> None:
    """As soon as it is known how much is wanted."""
    reference, root, _ = published(registry, made)
    store = LayoutStore(tmp_path / "other", Limits(disk_reserve=1 << 60))
    with pytest.raises(StorageError, match="too little space") as caught:
        pull_image(store, reference)
    assert caught.value.code == "DISK_RESERVE"
    assert registry.requests("GET", "blobs/" + root) == []
    nothing_left(store, root)


def test_the_reserve_stops_a_pull_on_the_way(
    registry: Registry, made: LayoutStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When somebody else fills the disk meanwhile."""
    reference, root, size = published(registry, made)
    store = LayoutStore(tmp_path / "other", Limits(disk_reserve=1 << 30))
    free = [(1 << 30) + 2 * size, *[1 << 30] * 99]
    monkeypatch.setattr(
        "shed.budget.os.statvfs", lambda path: SimpleNamespace(f_frsize=1, f_blocks=1 << 40, f_bavail=free.pop(0))
    )
    with pytest.raises(StorageError, match="too little space"):
        pull_image(store, reference, concurrency=1)
    nothing_left(store, root)


@pytest.mark.parametrize("size", [HUGE, (5 << 20)])
def test_what_a_build_fetches(registry: Registry, made: LayoutStore, other: LayoutStore, size: int) -> None:
    """The layers of an image to build from keep to the same limit."""
    reference, _, _ = published(registry, made)
    layer = made.read_manifest(digest_of(made, "app")).layers[0]
    data = registry.manifests[digest_of(made, "app")][1].replace(
        f'"size": {layer.size}'.encode(), f'"size": {size}'.encode()
    )
    registry.add_manifest("v1", data, media.MANIFEST)
    kit = small_kit(other)
    with open_remote(reference, platform=None, store=other, progress=Progress()) as remote:
        with pytest.raises(DataError, match="at most 4 MiB are allowed"):
            mint(other, remote, "app", kit=kit)
    assert registry.requests("GET", "blobs/" + layer.digest) == []


def test_a_layer_without_end(registry: Registry, made: LayoutStore, other: LayoutStore) -> None:
    """A build, too, reads no byte more of a layer than is published, and keeps none of it."""
    reference, _, _ = published(registry, made)
    layer = made.read_manifest(digest_of(made, "app")).layers[0]
    flood = Flood()
    registry.once("GET", layer.digest, flood, times=9)
    kit = small_kit(other)
    before = other.blob_digests()
    with open_remote(reference, platform=None, store=other, progress=Progress()) as remote:
        with pytest.raises(DataError, match=f"has more than {layer.size} bytes"):
            mint(other, remote, "app", kit=kit)
    assert flood.ended.wait(60)
    assert flood.sent < MOST
    assert (other.blob_digests(), partials(other.blobs)) == (before, {})


def test_an_index_of_too_many_manifests(registry: Registry, other: LayoutStore) -> None:
    """What is read to choose an image is bounded, too: nothing is kept of it but in memory."""
    padding = b" " * (4 << 20)
    entries = []
    for number in range(40):
        data = (b'{"schemaVersion": 2, "manifests": [], "x": %d}' % number) + padding[: (4 << 20) - 100]
        entries.append(Descriptor(media.INDEX, registry.add_manifest(f"i{number}", data, media.INDEX), len(data)))
    registry.add_manifest("v1", Index(tuple(entries)).encode(), media.INDEX)
    with pytest.raises(DataError, match="too much to choose from"):
        pull_image(other, f"{registry.address}/me/app:v1")
    assert len(registry.requests("GET", "manifests")) < 20


@pytest.mark.parametrize("text", ["-1", "1e3", "", "9" * 20, "\N{SUPERSCRIPT TWO}"])
def test_annotations_that_are_no_sizes(text: str) -> None:
    """One sentence that names the annotation."""
    annotations = {ROOT_KEY: f"sha256:{'0' * 64}", SIZE_KEYS[ROOT_KEY]: text}
    with pytest.raises(DataError, match=r"io\.shed\.rootfs\.erofs\.size is not a number of bytes"):
        BootAnnotations.parse(annotations)


def test_one_blob_of_two_sizes() -> None:
    """What is kernel and initrd at once has one size."""
    same = f"sha256:{'0' * 64}"
    named = {
        "io.shed.kernel.digest": same,
        "io.shed.initrd.digest": same,
        "io.shed.kernel.size": "1",
        "io.shed.initrd.size": "2",
    }
    with pytest.raises(DataError, match="has 1 bytes elsewhere"):
        BootAnnotations.parse(named)


def test_a_file_with_another_size_than_published(tmp_path: Path, other: LayoutStore) -> None:
    """A load refuses it as a pull does."""
    store = LayoutStore(tmp_path / "sound")
    mint_sound(store, tmp_path)
    variant(store, "bad", {SIZE_KEYS[ROOT_KEY]: "7"})
    save_to_file(store, ["bad"], tmp_path / "bad.tar", Progress())
    with pytest.raises(ShedError, match="bytes, expected 7"):
        load_images(other, tmp_path / "bad.tar")
    assert other.tag_names() == []
