"""Images in a real registry: pushed, seen by others' tools, kept by its garbage collector, copied, and pulled again
byte for byte.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.erofs import layout
from shed.errors import ConflictError, DataError, NotFoundError, RegistryError, ShedError, UsageError
from shed.images.annotations import RUNTIME_KEY, BootAnnotations
from shed.images.listing import list_images
from shed.images.mint import mint_archive
from shed.images.pull import pull_image
from shed.images.push import push_image
from shed.images.remote import open_remote
from shed.images.resolve import resolve_image
from shed.oci import media
from shed.oci.content import BytesSource
from shed.oci.descriptor import Descriptor, Platform
from shed.oci.digest import Digest, digest_bytes
from shed.oci.manifest import Manifest
from shed.oci.partial import partial_path
from shed.oci.registry.client import Repository
from shed.oci.registry.reference import parse_reference
from shed.oci.selection import select_image
from shed.oci.store import LayoutStore
from shed.progress import Progress
from support.erofs.images import Damaged, make_image, sample_entries
from support.images.kit import copy_store
from support.images.minted import LAYER, small_kit
from support.layers.tars import Image, file, folder, tar
from support.registries.docker_registry import PASSWORD, DockerRegistry, docker_registry, no_credentials

BIG = tar(folder("usr"), *(file(f"usr/{number}", os.urandom(700_000)) for number in range(10)))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """A registry for all tests; each uses repositories of its own."""
    with docker_registry(tmp_path_factory.mktemp("registry") / "r") as registry:
        yield registry


@pytest.fixture(autouse=True)
def _no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_credentials(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def minted(tmp_path_factory: pytest.TempPathFactory) -> tuple[LayoutStore, Digest]:
    """A store with an image of two layers, and the digest of its manifest."""
    scratch = tmp_path_factory.mktemp("minted")
    store = LayoutStore(scratch / "images")
    archive = Image(LAYER, BIG).archive(scratch / "a.tar")
    return store, mint_archive(store, archive, "app", kit=small_kit(store)).manifest_digest


def blobs(store: LayoutStore, digest: Digest) -> dict[str, Digest]:
    """Return what the image consists of."""
    manifest = store.read_manifest(digest)
    layers = {f"layer {number}": layer.digest for number, layer in enumerate(manifest.layers)}
    return {"config": manifest.config.digest, **layers, **BootAnnotations.parse(manifest.annotations).blobs()}


def skopeo(*words: str) -> str:
    """Run skopeo and return what it prints."""
    return subprocess.run(["skopeo", *words], check=True, capture_output=True, text=True).stdout


def test_push_and_what_others_see(server: DockerRegistry, minted: tuple[LayoutStore, Digest], tmp_path: Path) -> None:
    """All blobs are there, the manifest is the store's byte for byte, skopeo finds the image, and a second push sends
    nothing.
    """
    store, digest = minted
    reference = f"{server.address}/seen/shed-fc-app:v1"
    first = push_image(store, "app", reference)
    parts = blobs(store, digest)
    assert (first.digest, first.uploaded, first.exists, first.mounted) == (digest, len(parts) + 1, 0, 0)
    for what, blob in parts.items():
        assert server.get(f"seen/shed-fc-app/blobs/{blob}", method="HEAD")[0] == 200, what
    assert server.get(f"seen/shed-fc-app/manifests/{digest}", accept=media.MANIFEST) == (200, store.read_bytes(digest))
    index = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{reference}"))
    image, boot = index["manifests"]
    assert (index["mediaType"], image["digest"], image["platform"]) == (
        media.INDEX,
        digest,
        {"os": "linux", "architecture": "amd64"},
    )
    assert boot["annotations"] == {"vnd.docker.reference.type": "shed-boot", "vnd.docker.reference.digest": digest}
    assert boot["platform"] == {"os": "unknown", "architecture": "unknown"}
    listed = json.loads(server.get(f"seen/shed-fc-app/manifests/{boot['digest']}", accept=media.MANIFEST)[1])
    assert listed["artifactType"] == "application/vnd.shed.boot.v1+json"
    assert {layer["mediaType"]: layer["digest"] for layer in listed["layers"]} == {
        "application/vnd.shed.kernel": parts["kernel"],
        "application/vnd.shed.initrd": parts["initrd"],
        "application/vnd.shed.runtime.erofs": parts["runtime erofs"],
        "application/vnd.shed.rootfs.erofs": parts["rootfs erofs"],
    }
    about = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{reference}"))
    assert len(about["Layers"]) == 2
    again = push_image(store, "app", reference)
    assert (again.uploaded, again.uploaded_bytes, again.exists, again.index_digest) == (
        0,
        0,
        len(parts) + 1,
        first.index_digest,
    )


def test_garbage_collection_keeps_all_of_it(
    server: DockerRegistry, minted: tuple[LayoutStore, Digest], tmp_path: Path
) -> None:
    """The registry removes what nothing refers to, and nothing of the image: it is pulled into an empty store, and is
    the same.
    """
    store, digest = minted
    reference = f"{server.address}/kept/app:v1"
    push_image(store, "app", reference)
    loose = Repository(parse_reference(reference), push=True)
    unwanted = b"nothing refers to this"
    loose.upload_blob(digest_bytes(unwanted), BytesSource(unwanted))
    assert "blob eligible for deletion: " + digest_bytes(unwanted) in server.collect_garbage()
    assert loose.has_blob(digest_bytes(unwanted)) is None
    other = LayoutStore(tmp_path / "other")
    pulled = pull_image(other, reference, with_layers=True)
    assert (pulled.tag, pulled.digest) == ("app", digest)
    assert all(
        other.blob_path(blob).read_bytes() == store.blob_path(blob).read_bytes()
        for blob in blobs(store, digest).values()
    )
    assert other.read_bytes(digest) == store.read_bytes(digest)


def test_boot_only_and_later_the_layers(
    server: DockerRegistry, minted: tuple[LayoutStore, Digest], tmp_path: Path
) -> None:
    """A pull brings what boots; such an image cannot be pushed, which is told before anything is sent; its layers come
    later, alone.
    """
    store, digest = minted
    reference = f"{server.address}/parts/app:v1"
    push_image(store, "app", reference)
    other = LayoutStore(tmp_path / "other")
    first = pull_image(other, reference, tag="mine")
    assert (first.tag, first.fetched, first.exists) == ("mine", 4, 0)
    assert (
        resolve_image(other, "mine", trusted=None).digest
        == resolve_image(other, reference, trusted=None).digest
        == digest
    )
    (listed,) = list_images(other)
    assert (listed.layers, listed.bootable) == ("boot-only", True)
    with pytest.raises(ConflictError, match="image layers not present locally") as caught:
        push_image(other, "mine", f"{server.address}/parts/again:v1")
    assert caught.value.code == "LAYERS_MISSING"
    assert "shed image pull" in (caught.value.hint or "")
    assert "--with-layers" in (caught.value.hint or "")
    assert server.get("parts/again/tags/list")[0] == 404
    assert not list((server.storage / "docker/registry/v2/repositories/parts").glob("again"))
    second = pull_image(other, reference, tag="mine", with_layers=True)
    assert (second.fetched, second.exists) == (2, 4)
    assert list_images(other)[0].layers == "full"
    assert push_image(other, "mine", f"{server.address}/parts/again:v1").digest == digest


def test_a_damaged_blob_is_pulled_again(
    server: DockerRegistry, minted: tuple[LayoutStore, Digest], tmp_path: Path
) -> None:
    """Pulling mends a store."""
    store, digest = minted
    reference = f"{server.address}/mended/app:v1"
    push_image(store, "app", reference)
    other = LayoutStore(tmp_path / "other")
    pull_image(other, reference)
    root = other.blob_path(blobs(store, digest)["rootfs erofs"])
    root.chmod(0o644)
    root.write_bytes(b"x" * root.stat().st_size)
    assert pull_image(other, reference).fetched == 1
    assert resolve_image(other, "app", verify=True, trusted=None).root == root


def test_copies_by_skopeo(server: DockerRegistry, minted: tuple[LayoutStore, Digest], tmp_path: Path) -> None:
    """All of it is copied to another repository, and to another registry, and pulled from there."""
    store, digest = minted
    push_image(store, "app", f"{server.address}/copied/app:v1")
    with docker_registry(tmp_path / "second") as second:
        for number, target in enumerate((f"{server.address}/elsewhere/app:v2", f"{second.address}/far/app:v2")):
            tls = ("--src-tls-verify=false", "--dest-tls-verify=false")
            skopeo("copy", "--all", *tls, f"docker://{server.address}/copied/app:v1", f"docker://{target}")
            other = LayoutStore(tmp_path / f"other{number}")
            assert pull_image(other, target, with_layers=True).digest == digest
            resolve_image(other, "app", verify=True, trusted=None)


def test_mounts_between_repositories(server: DockerRegistry, tmp_path: Path) -> None:
    """What the image was built for is in the same registry: nothing is sent but what is not there."""
    store = LayoutStore(tmp_path / "images")
    source = f"{server.address}/mount/source:v1"
    archive = Image(LAYER).archive(tmp_path / "a.tar")
    digest = mint_archive(store, archive, "app", kit=small_kit(store), source_ref=source).manifest_digest
    push_image(store, "app", source)
    copied = push_image(store, "app", f"{server.address}/mount/target:v1")
    assert (copied.uploaded, copied.mounted, copied.digest) == (0, len(blobs(store, digest)) + 1, digest)


def test_an_image_of_the_reference_implementation(
    server: DockerRegistry, minted: tuple[LayoutStore, Digest], tmp_path: Path
) -> None:
    """A plain manifest under the tag, loose blobs beside it, no runtime: it is pulled, and booting says what it
    lacks.
    """
    store, digest = minted
    manifest = store.read_manifest(digest)
    annotations = {key: value for key, value in manifest.annotations.items() if key != RUNTIME_KEY}
    plain = Manifest(manifest.config, manifest.layers, annotations).encode()
    repository = Repository(parse_reference(f"{server.address}/reference/shed-fc-base:v1"), push=True)
    for blob in blobs(store, digest).values():
        repository.upload_blob(blob, BytesSource(store.blob_path(blob).read_bytes()))
    repository.put_manifest("v1", plain, media.MANIFEST)
    other = LayoutStore(tmp_path / "other")
    pulled = pull_image(other, str(repository.reference))
    assert (pulled.tag, pulled.digest, pulled.fetched) == ("base", digest_bytes(plain), 3)
    with pytest.raises(DataError, match="names no runtime erofs blob"):
        resolve_image(other, "base", trusted=None)


def test_an_ordinary_image(server: DockerRegistry, tmp_path: Path) -> None:
    """Refused, word for word, unless its layers are asked for; then it is here to be pushed; and it is minted without
    being stored.
    """
    archive = Image(LAYER, media_types="docker").archive(tmp_path / "a.tar")
    reference = f"{server.address}/ordinary/app:v1"
    skopeo("copy", "--dest-tls-verify=false", f"oci-archive:{archive}", f"docker://{reference}")
    digest = Digest(json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{reference}"))["Digest"])
    store = LayoutStore(tmp_path / "images")
    with pytest.raises(DataError) as caught:
        pull_image(store, reference)
    short = digest[:19]
    assert caught.value.message == (
        f"image manifest {short} lacks io.shed.rootfs.erofs.digest annotation (built with pre-v0.5.2 tooling). "
        f"Re-pull against current images: shed image rm {short} && shed-server pull-images."
    )
    assert "boot-only" in (caught.value.hint or "")
    assert f"shed image pull {reference} --with-layers" in (caught.value.hint or "")
    assert (store.tag_names(), store.blob_digests()) == ([], [])
    assert pull_image(store, reference, with_layers=True).digest == digest
    assert push_image(store, "app", f"{server.address}/ordinary/again:v1").index_digest == digest
    with open_remote(reference, platform=None, store=store, progress=Progress()) as remote:
        assert select_image(remote).digest == digest


@pytest.mark.parametrize(("platform", "architecture"), [(None, "amd64"), ("linux/arm64", "arm64")])
def test_platforms(server: DockerRegistry, tmp_path: Path, platform: str | None, architecture: str) -> None:
    """One image of several is chosen; without a choice, this machine's; what is missing is told with what there is."""
    images = {name: Image(LAYER, architecture=name) for name in ("amd64", "arm64")}
    repository = Repository(parse_reference(f"{server.address}/platforms/app:v1"), push=True)
    entries = []
    for name, image in images.items():
        entry = image.seal()
        for data in image.blobs.values():
            repository.upload_blob(digest_bytes(data), BytesSource(data))
        data = image.blobs[entry["digest"].removeprefix("sha256:")]
        repository.put_manifest(entry["digest"], data, media.MANIFEST)
        entries.append(entry | {"platform": {"os": "linux", "architecture": name}})
    repository.put_manifest(
        "v1", json.dumps({"schemaVersion": 2, "mediaType": media.INDEX, "manifests": entries}).encode(), media.INDEX
    )
    store = LayoutStore(tmp_path / "images")
    wanted = Platform.parse(platform) if platform else None
    pulled = pull_image(store, str(repository.reference), platform=wanted, with_layers=True)
    assert store.read_config(store.read_manifest(pulled.digest)).platform.architecture == architecture
    with pytest.raises(UsageError, match="holds no image for linux/s390x, only for linux/amd64, linux/arm64"):
        pull_image(store, str(repository.reference), platform=Platform.parse("linux/s390x"), with_layers=True)


def test_a_root_with_the_bug_of_erofs_utils(
    server: DockerRegistry, minted: tuple[LayoutStore, Digest], tmp_path: Path
) -> None:
    """A root that a kernel mounts and then cannot read is refused, naming the inode; the store stays as it was."""
    store, digest = minted
    damaged = Damaged(make_image(tmp_path / "image", sample_entries()), tmp_path / "damaged")
    features = damaged.description().feature_incompat
    damaged.superblock(feature_incompat=features & ~layout.INCOMPAT_BIG_PCLUSTER, compression=0)
    root = damaged.save().read_bytes()
    manifest = store.read_manifest(digest)
    annotations = {
        **manifest.annotations, "io.shed.rootfs.erofs.digest": digest_bytes(root),
        "io.shed.rootfs.erofs.size": str(len(root))
    }  # fmt: skip
    bad = LayoutStore(tmp_path / "bad")
    copy_store(store, bad.root)
    bad.put_bytes(root)
    data = Manifest(manifest.config, manifest.layers, annotations).encode()
    bad.publish(Descriptor(media.MANIFEST, bad.put_bytes(data), len(data)), "bad")
    push_image(bad, "bad", f"{server.address}/bug/app:v1")
    other = LayoutStore(tmp_path / "other")
    with pytest.raises(
        DataError, match=r"the root file system sha256:\w+ of .*/bug/app:v1 is unusable: inode \d+"
    ) as caught:
        pull_image(other, f"{server.address}/bug/app:v1")
    assert caught.value.hint
    assert (other.tag_names(), other.has(digest_bytes(root)), other.index().manifests) == ([], False, ())
    assert not list(other.blobs.glob(".*.tmp"))
    assert not partial_path(
        other.blobs, digest_bytes(root)
    ).exists()  # of another blob a part may be kept for the next pull


def test_a_blob_is_missing_in_the_registry(
    server: DockerRegistry, minted: tuple[LayoutStore, Digest], tmp_path: Path
) -> None:
    """A tag that is here keeps its old image when the pull of a new one fails half way."""
    store, digest = minted
    reference = f"{server.address}/missing/app:v1"
    push_image(store, "app", reference)
    other = LayoutStore(tmp_path / "other")
    mint_archive(other, Image(LAYER).archive(tmp_path / "old.tar"), "app", kit=small_kit(other))
    old, before = other.tag("app"), other.blob_digests()
    link = blobs(store, digest)["rootfs erofs"].removeprefix("sha256:")
    shutil.rmtree(server.storage / f"docker/registry/v2/repositories/missing/app/_layers/sha256/{link}")
    with pytest.raises(NotFoundError, match=f"{reference} lacks the rootfs blob sha256:{link[:12]}") as caught:
        pull_image(other, reference)
    assert "skopeo copy --all" in (caught.value.hint or "")
    assert (other.tag("app"), other.blob_digests()) == (old, before)


@pytest.mark.parametrize("reference", ["nothing/here:v1", "seen/shed-fc-app:v9", f"seen/shed-fc-app@sha256:{'0' * 64}"])
def test_what_is_not_there(server: DockerRegistry, tmp_path: Path, reference: str) -> None:
    """A repository, a tag, a digest."""
    with pytest.raises(NotFoundError, match=f"{server.address} has no manifest {reference}"):
        pull_image(LayoutStore(tmp_path / "images"), f"{server.address}/{reference}")


def test_a_digest_is_no_destination(server: DockerRegistry, minted: tuple[LayoutStore, Digest]) -> None:
    """A push needs a tag."""
    with pytest.raises(UsageError, match="a digest is not a name"):
        push_image(minted[0], "app", f"{server.address}/a/b@{minted[1]}")


def test_passwords(minted: tuple[LayoutStore, Digest], tmp_path: Path) -> None:
    """A registry with a password: refused without, and with a wrong one; the one in docker's configuration is used."""
    store, digest = minted
    with docker_registry(tmp_path / "closed", password=True) as closed:
        reference = f"{closed.address}/me/app:v1"

        def log_in(password: str) -> None:
            entry = {"auth": base64.b64encode(f"me:{password}".encode()).decode()}
            (tmp_path / "docker").mkdir(exist_ok=True)
            (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {closed.address: entry}}))

        for attempt in (None, "wrong"):
            if attempt:
                log_in(attempt)
            with pytest.raises(RegistryError, match=f"{closed.address} wants credentials") as caught:
                push_image(store, "app", reference)
            assert "docker login" in (caught.value.hint or "")
        log_in(PASSWORD)
        assert push_image(store, "app", reference).digest == digest
        assert pull_image(LayoutStore(tmp_path / "other"), reference).digest == digest


def test_errors_are_shed_errors(server: DockerRegistry, minted: tuple[LayoutStore, Digest], tmp_path: Path) -> None:
    """A damaged local blob is told before the registry gets it."""
    store, digest = minted
    damaged = LayoutStore(tmp_path / "damaged")
    shutil.copytree(store.root, damaged.root)
    path = damaged.blob_path(blobs(store, digest)["layer 1"])
    path.chmod(0o644)
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(ShedError, match="digest mismatch"):
        push_image(damaged, "app", f"{server.address}/damaged/app:v1")
    assert server.get("damaged/app/tags/list")[0] == 404
