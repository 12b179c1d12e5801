"""Finding, resolving, listing and showing images, sound ones and damaged ones."""

from pathlib import Path

import pytest

from shed.errors import DataError, NotFoundError, UsageError
from shed.images.listing import inspect_image, list_images
from shed.images.mint import MintResult
from shed.images.references import find_image
from shed.images.resolve import resolve_image
from shed.oci import media
from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest, hex_of, short
from shed.oci.manifest import Manifest
from shed.oci.store import LayoutStore
from support.images.minted import mint_small, small_kit
from support.layers.tars import file, tar


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    """An empty store."""
    return LayoutStore(tmp_path / "images")


@pytest.fixture
def minted(store: LayoutStore, tmp_path: Path) -> MintResult:
    """An image called base."""
    return mint_small(store, tmp_path)


def publish(store: LayoutStore, manifest: Manifest, name: str) -> Digest:
    """Put a manifest into the store under a name."""
    data = manifest.encode()
    digest = store.put_bytes(data)
    store.publish(Descriptor(media.MANIFEST, digest, len(data)), name)
    return digest


def without(store: LayoutStore, minted: MintResult, key: str) -> Digest:
    """Publish, as `old`, the image without one of its annotations."""
    manifest = store.read_manifest(minted.manifest_digest)
    kept = {name: value for name, value in manifest.annotations.items() if name != key}
    return publish(store, Manifest(manifest.config, manifest.layers, kept), "old")


def test_resolve(store: LayoutStore, minted: MintResult) -> None:
    """A tag gives the four files and the config."""
    image = resolve_image(store, "base")
    assert (image.digest, image.name, image.config) == (minted.manifest_digest, "base", {"Cmd": ["sh"]})
    assert image.root == store.blob_path(minted.root_digest)
    assert [path.read_bytes() for path in (image.kernel, image.initrd, image.runtime)] == [
        b"kernel",
        b"initrd",
        b"runtime",
    ]


def test_every_way_to_name_an_image(store: LayoutStore, minted: MintResult) -> None:
    """Tag, digest, short digest, and short digest without `sha256:`."""
    digest = minted.manifest_digest
    for reference in ("base", digest, short(digest), hex_of(digest)[:12], hex_of(digest), digest[:40]):
        found = find_image(store, reference)
        assert (found.digest, found.name) == (digest, "base")
    store.untag("base")
    assert find_image(store, short(digest)).name == ""


@pytest.mark.parametrize(
    "reference",
    ["nothing", "sha256:" + "0" * 64, "0" * 12, "", "a/b", "../base", "base:latest", "BASE", "sha256:" + "0" * 65],
)
def test_unknown_images(store: LayoutStore, minted: MintResult, reference: str) -> None:
    """What is not there is said so, with what to do."""
    with pytest.raises(NotFoundError, match="no image is called") as caught:
        find_image(store, reference)
    assert caught.value.code == "IMAGE_NOT_FOUND"
    assert "shed image ls" in (caught.value.hint or "")


def test_too_short_digest(store: LayoutStore, minted: MintResult) -> None:
    """Fewer than 12 digits mean nothing."""
    with pytest.raises(UsageError, match="too short"):
        find_image(store, minted.manifest_digest[:15])


def test_ambiguous_digest(store: LayoutStore, minted: MintResult, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short digest that means two images is refused."""
    other = Digest(minted.manifest_digest[:-1] + ("0" if minted.manifest_digest[-1] != "0" else "1"))
    store.publish(Descriptor(media.MANIFEST, other, 5), "other")
    with pytest.raises(UsageError, match="means 2 images") as caught:
        find_image(store, short(other))
    assert caught.value.code == "AMBIGUOUS_REFERENCE"
    assert find_image(store, other).name == "other"


def test_tag_wins_over_digest(store: LayoutStore, minted: MintResult, tmp_path: Path) -> None:
    """A name that looks like a short digest is a name."""
    name = hex_of(minted.manifest_digest)[:12]
    other = mint_small(store, tmp_path, name, tar(file("other")))
    assert find_image(store, name).digest == other.manifest_digest


def test_missing_annotation_has_the_documented_text(store: LayoutStore, minted: MintResult) -> None:
    """Word for word as image-format.md has it."""
    digest = short(without(store, minted, "io.shed.rootfs.erofs.digest"))
    with pytest.raises(DataError) as caught:
        resolve_image(store, "old")
    assert str(caught.value) == (
        f"image manifest {digest} lacks io.shed.rootfs.erofs.digest annotation (built with pre-v0.5.2 tooling). "
        f"Re-pull against current images: shed image rm {digest} && shed-server pull-images."
    )


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("io.shed.kernel.digest", "kernel"),
        ("io.shed.initrd.digest", "initrd"),
        ("io.shed.runtime.erofs.digest", "runtime erofs"),
    ],
)
def test_other_missing_annotations(store: LayoutStore, minted: MintResult, key: str, what: str) -> None:
    """An image that names no kernel, initrd or runtime cannot be booted either."""
    without(store, minted, key)
    with pytest.raises(DataError, match=f"names no {what} blob"):
        resolve_image(store, "old")


def test_missing_blob_has_the_documented_text(store: LayoutStore, minted: MintResult) -> None:
    """Word for word as the reference has it, with what is known filled in."""
    store.blob_path(minted.root_digest).unlink()
    with pytest.raises(NotFoundError) as caught:
        resolve_image(store, "base")
    assert str(caught.value) == (
        f"rootfs erofs blob {short(minted.root_digest)} referenced by manifest {short(minted.manifest_digest)} is "
        "missing from the "
        "local store; re-pull the image (shed image pull base -t base) to recover"
    )


@pytest.mark.parametrize("damage", ["altered", "truncated"])
def test_damaged_root(store: LayoutStore, minted: MintResult, damage: str) -> None:
    """A root that is not what it was is not booted, also after it was good once; minting again mends it."""
    resolve_image(store, "base")
    path = store.blob_path(minted.root_digest)
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data[:5000] + b"!" + data[5001:] if damage == "altered" else data[:5000])
    with pytest.raises(
        DataError,
        match=f"rootfs erofs blob of image manifest {short(minted.manifest_digest)} is damaged: .*digest mismatch",
    ) as caught:
        resolve_image(store, "base")
    assert caught.value.code == "DIGEST_MISMATCH"
    mint_small(store, store.root.parent)
    assert resolve_image(store, "base", verify=True).root == path


def test_a_damaged_kernel_comes_from_the_boot_kit(store: LayoutStore, minted: MintResult) -> None:
    """Building the image again would not mend it, so that is not what the hint says."""
    path = resolve_image(store, "base").kernel
    path.chmod(0o644)
    path.write_bytes(b"!" + path.read_bytes())
    with pytest.raises(DataError, match="kernel blob of image manifest") as caught:
        resolve_image(store, "base")
    assert "shed image bootkit build" in str(caught.value.hint)


def test_damaged_manifest_and_tag(store: LayoutStore, minted: MintResult) -> None:
    """A manifest that was altered or lost, and a broken tag file, are one sentence each."""
    path = store.blob_path(minted.manifest_digest)
    path.chmod(0o644)
    path.write_bytes(b"{}")
    with pytest.raises(DataError, match=r"image manifest .*digest mismatch"):
        resolve_image(store, "base")
    path.unlink()
    with pytest.raises(NotFoundError, match=r"image manifest .* is not in the local store"):
        resolve_image(store, "base")
    for junk in ("junk", '{"digest": "x"}', "[]"):
        (store.tags / "base.json").write_text(junk)
        with pytest.raises(DataError, match=r"tag file .*/base\.json") as caught:
            resolve_image(store, "base")
        assert "again under the name base" in (caught.value.hint or "")


def test_bad_annotations(store: LayoutStore, minted: MintResult) -> None:
    """A digest that is none, and a schema of the future."""
    manifest = store.read_manifest(minted.manifest_digest)
    for key, value, problem in (
        ("io.shed.kernel.digest", "sha256:../../etc/passwd", "io.shed.kernel.digest: invalid digest"),
        ("io.shed.schema-version", "2", "io.shed.schema-version is '2'"),
    ):
        publish(store, Manifest(manifest.config, manifest.layers, manifest.annotations | {key: value}), "odd")
        with pytest.raises(DataError, match=problem):
            resolve_image(store, "odd")


def test_list(store: LayoutStore, minted: MintResult, tmp_path: Path) -> None:
    """Tags by name, then images without a tag; sizes count what is on disk once."""
    assert list_images(LayoutStore(tmp_path / "none")) == []
    other = mint_small(store, tmp_path, "another", tar(file("x")))
    store.untag("another")
    first, second = list_images(store)
    assert (first.name, first.digest, first.source_ref, first.layers, first.bootable) == (
        "base",
        minted.manifest_digest,
        "base",
        "full",
        True,
    )
    assert first.updated_at.endswith("Z")
    assert (second.name, second.digest, second.warning) == ("", other.manifest_digest, "")
    manifest = store.read_manifest(minted.manifest_digest)
    blobs = [minted.manifest_digest, manifest.config.digest, manifest.layers[0].digest, minted.root_digest]
    assert first.size_bytes == sum(store.size(blob) for blob in blobs) + len(b"kernel") + len(b"initrd") + len(
        b"runtime"
    )


def test_list_with_damage(store: LayoutStore, minted: MintResult, tmp_path: Path) -> None:
    """Whatever is broken is listed with a warning, and the rest as ever."""
    without(store, minted, "io.shed.rootfs.erofs.digest")
    (store.tags / "broken.json").write_text("junk")
    lost = mint_small(store, tmp_path, "lost", tar(file("x")))
    store.blob_path(lost.manifest_digest).unlink()
    rootless = mint_small(store, tmp_path, "rootless", tar(file("y")))
    store.blob_path(rootless.root_digest).unlink()
    store.blob_path(store.read_manifest(rootless.manifest_digest).layers[0].digest).unlink()
    images = {image.name: image for image in list_images(store)}
    assert {name: image.bootable for name, image in images.items()} == {
        "base": True,
        "broken": False,
        "lost": False,
        "old": False,
        "rootless": False,
    }
    assert "not valid JSON" in images["broken"].warning
    assert "not in the local store" in images["lost"].warning
    assert "lacks io.shed.rootfs.erofs.digest" in images["old"].warning
    assert (images["rootless"].warning, images["rootless"].layers) == (
        "missing from the local store: rootfs erofs",
        "boot-only",
    )
    (store.root / "index.json").write_text("junk")
    assert len(list_images(store)) == 5
    assert resolve_image(store, "base").name == "base"


def test_inspect(store: LayoutStore, minted: MintResult) -> None:
    """All that is known, as plain JSON types."""
    store.publish(Descriptor(media.MANIFEST, minted.manifest_digest, 5), "second")
    about = inspect_image(store, short(minted.manifest_digest))
    assert (about["name"], about["names"], about["platform"]) == ("base", ["base", "second"], "linux/amd64")
    assert about["boot_blobs"]["rootfs erofs"]["size_bytes"] == minted.root_size
    assert about["layers"][0]["present"]
    assert about["logical_size_bytes"] == minted.logical_size
    with pytest.raises(NotFoundError):
        inspect_image(store, "nothing")


def test_inspect_damaged(store: LayoutStore, minted: MintResult) -> None:
    """Missing blobs are shown as missing."""
    manifest = store.read_manifest(minted.manifest_digest)
    store.blob_path(manifest.config.digest).unlink()
    store.blob_path(minted.root_digest).unlink()
    about = inspect_image(store, "base")
    assert about["boot_blobs"]["rootfs erofs"]["size_bytes"] is None
    assert not about["bootable"]
    assert "rootfs erofs" in about["warning"]
    assert "platform" not in about


def test_image_without_config_is_refused(store: LayoutStore, minted: MintResult) -> None:
    """The config is needed to run things as the image wants."""
    small_kit(store)
    store.blob_path(store.read_manifest(minted.manifest_digest).config.digest).unlink()
    with pytest.raises(NotFoundError, match=r"image config .* is not in the local store"):
        resolve_image(store, "base")
