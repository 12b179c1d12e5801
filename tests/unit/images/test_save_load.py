"""Saving and loading images: the same bytes each time, everything verified, nothing half-done."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from shed.errors import ConflictError, DataError, NotFoundError, ShedError, UsageError
from shed.images.annotations import KERNEL_KEY, ROOT_KEY
from shed.images.listing import list_images
from shed.images.load import load_images
from shed.images.prune import prune
from shed.images.resolve import resolve_image
from shed.images.save import save_images, save_to_file
from shed.oci import media
from shed.oci.descriptor import Descriptor
from shed.oci.digest import digest_bytes, hex_of
from shed.oci.manifest import Manifest
from shed.oci.store import LayoutStore
from shed.progress import BytesEvent, Event, Progress, WarningEvent
from support.images.minted import LAYER, digest_of, mint_sound, root_of_erofs_utils_1_7_1, variant
from support.layers.tars import Image, file, folder, symlink, tar

Files = dict[str, bytes]


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    """A store with an image called base."""
    store = LayoutStore(tmp_path / "mine")
    mint_sound(store, tmp_path)
    return store


@pytest.fixture
def theirs(tmp_path: Path) -> LayoutStore:
    """Another store, which is not there yet."""
    return LayoutStore(tmp_path / "theirs")


def saved(store: LayoutStore, *references: str) -> bytes:
    """Return the file that holds these images."""
    output = io.BytesIO()
    save_images(store, references or ["base"], output)
    return output.getvalue()


def content(store: LayoutStore) -> list[str]:
    """Return the blobs, staged ones too, and the names."""
    blobs = [path.name for path in store.blobs.iterdir() if path.suffix != ".lock"] if store.blobs.exists() else []
    return sorted(blobs) + store.tag_names()


def files_of(archive: bytes) -> Files:
    """Return the files of an archive."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {member.name: opened.extractfile(member).read() for member in opened}  # type: ignore[union-attr]


def packed(files: Files) -> bytes:
    """Return an archive of `files`."""
    return tar(*(file(name, data) for name, data in files.items()))


def test_the_same_images_give_the_same_bytes(store: LayoutStore, theirs: LayoutStore, tmp_path: Path) -> None:
    """From the same store, and from one that the file was loaded into; times and owners are zero."""
    path = tmp_path / "a.tar"
    save_to_file(store, ["base"], path)
    assert saved(store) == path.read_bytes()
    load_images(theirs, path)
    assert saved(theirs) == path.read_bytes()
    with tarfile.open(path) as archive:
        assert {(member.mtime, member.uid, member.gid, member.uname, member.mode) for member in archive} == {
            (0, 0, 0, "", 0o644)
        }


def test_what_the_file_says(store: LayoutStore) -> None:
    """The name is that of an index of the image manifest and the boot manifest, all blobs of which are there with their
    sizes.
    """
    files = files_of(saved(store))
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": "base"}
    image, boot = json.loads(files[f"blobs/sha256/{hex_of(entry['digest'])}"])["manifests"]
    assert image["digest"] == digest_of(store)
    assert image["platform"] == {"architecture": "amd64", "os": "linux"}
    assert boot["annotations"] == {
        "vnd.docker.reference.type": "shed-boot",
        "vnd.docker.reference.digest": image["digest"],
    }
    for manifest in (image, boot):
        document = json.loads(files[f"blobs/sha256/{hex_of(manifest['digest'])}"])
        for blob in (document["config"], *document["layers"]):
            assert digest_bytes(files[f"blobs/sha256/{hex_of(blob['digest'])}"]) == blob["digest"]
            assert len(files[f"blobs/sha256/{hex_of(blob['digest'])}"]) == blob["size"]


def test_several_images_in_one_file(store: LayoutStore, theirs: LayoutStore, tmp_path: Path) -> None:
    """By name and by digest; what they share is there once; what was named by its digest has no name."""
    other = mint_sound(store, tmp_path, "other", tar(file("x", b"y"))).manifest_digest
    store.publish(Descriptor(media.MANIFEST, other, store.size(other)), "twin")
    (tmp_path / "a.tar").write_bytes(saved(store, "base", "twin", "other", digest_of(store)))
    assert [(image.name, image.digest) for image in load_images(theirs, tmp_path / "a.tar")] == [
        ("base", digest_of(store)),
        ("twin", other),
        ("other", other),
        ("", digest_of(store)),
    ]
    assert theirs.tag_names() == ["base", "other", "twin"]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_a_compressed_file(
    store: LayoutStore, theirs: LayoutStore, tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    """Whoever compresses the file on its way need not unpack it."""
    (tmp_path / "a").write_bytes(pack(saved(store)))
    assert [image.name for image in load_images(theirs, tmp_path / "a", trust_kernel=True)] == ["base"]
    resolve_image(theirs, "base", verify=True)


def test_an_image_without_its_layers(store: LayoutStore, theirs: LayoutStore, tmp_path: Path) -> None:
    """It is saved with a warning, and loaded as what it is; loading the whole image later brings the layers."""
    whole = saved(store)
    (layer,) = store.read_manifest(digest_of(store)).layers
    store.blob_path(layer.digest).unlink()
    warnings: list[Event] = []
    with (tmp_path / "boot.tar").open("wb") as output:
        save_images(store, ["base"], output, Progress(warnings.append))
    assert [event.message.partition(":")[0] for event in warnings if isinstance(event, WarningEvent)] == ["base"]
    assert [image.layers for image in load_images(theirs, tmp_path / "boot.tar")] == [False]
    assert [image.layers for image in list_images(theirs)] == ["boot-only"]
    (tmp_path / "whole.tar").write_bytes(whole)
    assert [image.layers for image in load_images(theirs, tmp_path / "whole.tar")] == [True]
    assert [image.layers for image in list_images(theirs)] == ["full"]


def test_what_cannot_be_saved(store: LayoutStore, tmp_path: Path) -> None:
    """The thing is named, the old file stays, and no other is left."""
    path = tmp_path / "out/a.tar"
    path.parent.mkdir()
    path.write_bytes(b"old")
    kernel = resolve_image(store, "base").kernel
    with pytest.raises(NotFoundError, match="no image is called 'nothing'"):
        save_to_file(store, ["base", "nothing"], path)
    kernel.chmod(0o644)
    kernel.write_bytes(b"KERNEL")
    with pytest.raises(DataError, match="digest mismatch"):
        save_to_file(store, ["base"], path)
    kernel.unlink()
    with pytest.raises(NotFoundError, match="cannot save base: its kernel blob"):
        save_to_file(store, ["base"], path)
    with pytest.raises(NotFoundError, match=r"the folder .* does not exist"):
        save_to_file(store, ["base"], tmp_path / "nowhere/a.tar")
    assert [(found.name, found.read_bytes()) for found in path.parent.iterdir()] == [("a.tar", b"old")]


def test_an_interrupted_save_leaves_nothing(store: LayoutStore, tmp_path: Path) -> None:
    """In the middle of a blob."""
    (tmp_path / "out").mkdir()

    def interrupt(event: Event) -> None:
        if isinstance(event, BytesEvent):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_to_file(store, ["base"], tmp_path / "out/a.tar", Progress(interrupt))
    assert list((tmp_path / "out").iterdir()) == []


def test_saving_to_what_is_no_file(store: LayoutStore, tmp_path: Path) -> None:
    """A link stays a link, and a pipe a pipe: what is behind them is written."""
    (tmp_path / "link").symlink_to(tmp_path / "target")
    save_to_file(store, ["base"], tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == saved(store)
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        save_to_file(store, ["base"], tmp_path / "pipe")
        assert (tmp_path / "pipe").is_fifo()
        assert os.read(reader, 10) == b"oci-layout"
    finally:
        os.close(reader)


def _without(what: str) -> Callable[[Files, Manifest], Files]:
    """Return what takes one blob out of a file."""

    def bend(files: Files, manifest: Manifest) -> Files:
        digest = {"kernel": manifest.annotations[KERNEL_KEY], "config": manifest.config.digest, "index.json": ""}[what]
        return {name: data for name, data in files.items() if name not in (what, f"blobs/sha256/{hex_of(digest)}")}

    return bend


def _altered(length: int) -> Callable[[Files, Manifest], Files]:
    """Return what replaces the layer with other bytes."""

    def bend(files: Files, manifest: Manifest) -> Files:
        (layer,) = manifest.layers
        return {**files, f"blobs/sha256/{hex_of(layer.digest)}": bytes(layer.size + length)}

    return bend


@pytest.mark.parametrize(
    ("bend", "message"),
    [
        (_without("kernel"), r"kernel blob sha256:\w{12} is missing"),
        (_without("config"), r"image config sha256:\w{12} is missing"),
        (_without("index.json"), r"is not an OCI image: it has no index\.json"),
        (_altered(0), r"layer 1 sha256:\w{12}: digest mismatch"),
        (_altered(1), r"layer 1 sha256:\w{12} has \d+ bytes, expected \d+"),
        (lambda files, _: {**files, "index.json": b"{}"}, r"index\.json of .*: 'manifests' is missing"),
        (lambda files, _: {**files, "index.json": b'{"schemaVersion": 2, "manifests": []}'}, "holds no image"),
    ],
    ids=["blob", "config", "index", "bytes", "size", "no list", "no image"],
)
def test_damaged_files(
    store: LayoutStore, theirs: LayoutStore, tmp_path: Path, bend: Callable[[Files, Manifest], Files], message: str
) -> None:
    """One error that names the file and the thing, a hint, and nothing in the store."""
    path = tmp_path / "a.tar"
    path.write_bytes(packed(bend(files_of(saved(store)), store.read_manifest(digest_of(store)))))
    refused(theirs, path, message)


def refused(store: LayoutStore, path: Path, message: str) -> ShedError:
    """Load `path`, which must fail and leave the store as it is; return the error."""
    before = content(store)
    with pytest.raises(DataError, match=message) as caught:
        load_images(store, path)
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert content(store) == before
    return caught.value


def test_files_that_are_cut(store: LayoutStore, theirs: LayoutStore, tmp_path: Path) -> None:
    """Wherever a stream ends too early, between two blobs too, that is said."""
    whole = saved(store)
    path = tmp_path / "a.tar"
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        starts = [member.offset for member in archive][1:]
    for length in (*starts, *(start + 100 for start in starts), *(start - 100 for start in starts)):
        path.write_bytes(whole[:length])
        refused(theirs, path, r"is not a readable tar archive|has no index\.json|is missing")


@pytest.mark.parametrize("make", [folder, lambda name: symlink(name, "/etc/passwd")], ids=["folder", "link"])
def test_blobs_that_are_no_files(
    store: LayoutStore, theirs: LayoutStore, tmp_path: Path, make: Callable[[str], Any]
) -> None:
    """They are refused by name."""
    files = files_of(saved(store))
    name = f"blobs/sha256/{hex_of(store.read_manifest(digest_of(store)).annotations[KERNEL_KEY])}"
    del files[name]
    (tmp_path / "a.tar").write_bytes(tar(*(file(*item) for item in files.items()), make(name)))
    refused(theirs, tmp_path / "a.tar", f"{name} is not a regular file")


def test_files_with_more_than_they_should_have(store: LayoutStore, theirs: LayoutStore, tmp_path: Path) -> None:
    """The same name twice is refused; names that lead elsewhere, and blobs that nothing refers to, are never looked
    at.
    """
    files = files_of(saved(store))
    path = tmp_path / "a.tar"
    path.write_bytes(tar(*(file(*item) for item in files.items()), file("index.json", files["index.json"])))
    refused(theirs, path, r"it holds 'index\.json' twice")
    extra = {"../escaped": b"x", "/escaped": b"x", f"blobs/sha256/{'0' * 64}": b"x"}
    path.write_bytes(packed({**files, **extra}))
    load_images(theirs, path)
    theirs_blobs = {hex_of(digest) for digest in theirs.blob_digests()}
    assert "0" * 64 not in theirs_blobs
    assert not (tmp_path / "escaped").exists()


def test_an_ordinary_image_is_refused(theirs: LayoutStore, tmp_path: Path) -> None:
    """With the words that are documented, and the command that makes it bootable."""
    error = refused(
        theirs,
        Image(LAYER).archive(tmp_path / "a.tar"),
        r"lacks io\.shed\.rootfs\.erofs\.digest annotation \(built with pre-v0",
    )
    assert error.code == "NOT_BOOTABLE"
    assert "shed image build --from-oci-archive" in (error.hint or "")


def test_a_root_that_a_kernel_could_not_read_is_refused(
    store: LayoutStore, theirs: LayoutStore, tmp_path: Path
) -> None:
    """Its digest is right, and it is refused all the same; the inode and the rule are named."""
    root = store.put_bytes(root_of_erofs_utils_1_7_1(tmp_path).read_bytes())
    variant(store, "broken", {ROOT_KEY: root})
    (tmp_path / "a.tar").write_bytes(saved(store, "base", "broken"))
    refused(theirs, tmp_path / "a.tar", r"rootfs erofs sha256:\w{12} is unusable: inode \d+ .*undeclared\]")


def test_names_that_are_taken(store: LayoutStore, theirs: LayoutStore, tmp_path: Path) -> None:
    """An image is not pushed off its name: the loaded one has none, unless it is forced or told another."""
    mint_sound(theirs, tmp_path, "base", tar(file("other")))
    first = digest_of(theirs)
    path = tmp_path / "a.tar"
    path.write_bytes(saved(store))
    events: list[Event] = []
    assert [image.name for image in load_images(theirs, path, progress=Progress(events.append))] == [""]
    assert any(isinstance(event, WarningEvent) and "base is another image here" in event.message for event in events)
    assert digest_of(theirs) == first
    assert digest_of(store) in {entry.digest for entry in theirs.index().manifests}
    with pytest.raises(ConflictError, match="base is the name of another image"):
        load_images(theirs, path, tag="base")
    assert [image.name for image in load_images(theirs, path, tag="mine")] == ["mine"]
    assert digest_of(theirs, "mine") == digest_of(store)
    assert [image.name for image in load_images(theirs, path, force=True)] == ["base"]
    assert digest_of(theirs) == digest_of(store)


def test_names_that_are_none_here(store: LayoutStore, theirs: LayoutStore, tmp_path: Path) -> None:
    """Other tools write whole references there: the image is loaded without a name, and that is said."""
    files = files_of(saved(store))
    index = json.loads(files["index.json"])
    index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] = "ghcr.io/me/base:v1"
    path = tmp_path / "a.tar"
    path.write_bytes(packed({**files, "index.json": json.dumps(index).encode()}))
    events: list[Event] = []
    assert [image.name for image in load_images(theirs, path, progress=Progress(events.append))] == [""]
    assert any(isinstance(event, WarningEvent) and "ghcr.io/me/base:v1" in event.message for event in events)
    with pytest.raises(UsageError, match="invalid image name"):
        load_images(theirs, path, tag="a/b")


def test_one_name_for_several_images(store: LayoutStore, theirs: LayoutStore, tmp_path: Path) -> None:
    """Cannot be."""
    mint_sound(store, tmp_path, "other", tar(file("x", b"y")))
    (tmp_path / "a.tar").write_bytes(saved(store, "base", "other"))
    with pytest.raises(UsageError, match="holds 2 images: they cannot all be called mine"):
        load_images(theirs, tmp_path / "a.tar", tag="mine")
    assert content(theirs) == []


def test_loading_mends_what_is_damaged(store: LayoutStore, theirs: LayoutStore, tmp_path: Path) -> None:
    """Blobs that are here are not copied again, unless they are damaged."""
    path = tmp_path / "a.tar"
    path.write_bytes(saved(store))
    load_images(theirs, path, trust_kernel=True)
    root, kernel = resolve_image(theirs, "base").root, resolve_image(theirs, "base").kernel
    inode = root.stat().st_ino
    kernel.chmod(0o644)
    kernel.write_bytes(b"KERNEL")
    load_images(theirs, path)
    assert resolve_image(theirs, "base", verify=True).kernel.read_bytes() == b"kernel"
    assert root.stat().st_ino == inode


def test_a_prune_meanwhile(store: LayoutStore, theirs: LayoutStore, tmp_path: Path) -> None:
    """Between the blobs and the name of an image nothing refers to them yet, and yet they stay."""
    mint_sound(theirs, tmp_path, "base", tar(file("other")))
    (tmp_path / "a.tar").write_bytes(saved(store))
    removed: list[int] = []

    def prune_then(event: Event) -> None:
        if isinstance(event, WarningEvent):  # it is told that the name is taken
            removed.append(len(prune(LayoutStore(theirs.root), list, {}).garbage))

    (image,) = load_images(theirs, tmp_path / "a.tar", progress=Progress(prune_then))
    assert removed == [0]
    resolve_image(theirs, image.digest, verify=True)
    assert all(theirs.has(layer.digest) for layer in theirs.read_manifest(image.digest).layers)
    assert prune(theirs, list, {}).garbage
