"""Images as registries have them: other spellings, several instances of one image, and company that is no image."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from shed.errors import DataError, UsageError
from shed.oci import media
from shed.oci.archive import open_archive
from shed.oci.descriptor import Platform
from shed.oci.manifest import ImageConfig, Manifest
from shed.oci.selection import SelectedImage, select_image, select_named
from support.layers.tars import Image, file, tar

AMD64 = {"os": "linux", "architecture": "amd64"}
EMPTY = {"mediaType": media.EMPTY, "digest": "sha256:" + "0" * 64, "size": 2}


class Index:
    """A layout that is made entry by entry; `seal` lists them, in an index of their own when `nested`."""

    def __init__(self) -> None:
        self.whole = Image(b"")
        self.entries: list[dict[str, Any]] = []

    def image(self, content: str, *, architecture: Any = "amd64", config: Any = None, **descriptor: Any) -> str:
        """Add an image with a file that holds `content`, and return its digest."""
        image = Image(tar(file("which", content.encode())), architecture=architecture)
        image.config |= config or {}
        return self._add(image, descriptor)

    def artifact(self, manifest: dict[str, Any], **descriptor: Any) -> str:
        """Add something that has a manifest, with a config and a layer of `manifest`."""
        other = Image(tar(file("other")))
        other.seal()
        body = {**other.manifest, **manifest}
        entry = self.whole.blob(json.dumps(body).encode(), media.MANIFEST) | descriptor
        self.whole.blobs |= other.blobs
        self.entries.append(entry)
        return str(entry["digest"])

    def _add(self, image: Image, descriptor: dict[str, Any]) -> str:
        entry = image.seal(**descriptor)
        self.whole.blobs |= image.blobs
        self.entries.append(entry)
        return str(entry["digest"])

    def archive(self, folder: Path, *, nested: bool = True) -> Path:
        """Write the archive."""
        inner = json.dumps({"schemaVersion": 2, "manifests": self.entries}).encode()
        self.whole.index["manifests"] = [self.whole.blob(inner, media.INDEX)] if nested else self.entries
        return self.whole.archive(folder / "a.tar")


def choose(path: Path, platform: str | None = None) -> SelectedImage:
    """Return the image that is chosen."""
    with open_archive(path, scratch=path.parent) as archive:
        return select_image(archive, Platform.parse(platform) if platform else None)


@pytest.mark.parametrize("nested", [True, False], ids=["in an index", "under one name"])
def test_variants_of_a_processor(tmp_path: Path, nested: bool) -> None:
    """The plain one unless another is asked for; of those that are not above it, the highest."""
    index = Index()
    name: dict[str, Any] = {"annotations": {"org.opencontainers.image.ref.name": "t"}}
    third = index.image("3", platform={**AMD64, "variant": "v3"}, **name)
    first = index.image("1", platform=AMD64, **name)
    second = index.image("2", platform={**AMD64, "variant": "v2"}, **name)
    path = index.archive(tmp_path, nested=nested)
    wanted = {"linux/amd64": first, "linux/amd64/v1": first, "linux/amd64/v2": second, "linux/amd64/v4": third}
    assert {platform: choose(path, platform).digest for platform in wanted} == wanted


def test_the_lowest_variant_when_there_is_no_plain_one(tmp_path: Path) -> None:
    """It runs on most machines; who asks for less gets none."""
    index = Index()
    index.image("3", platform={**AMD64, "variant": "v3"})
    second = index.image("2", platform={**AMD64, "variant": "v2"})
    path = index.archive(tmp_path)
    assert choose(path, "linux/amd64").digest == second
    with pytest.raises(UsageError, match="no image for linux/amd64/v1, only for linux/amd64/v2, linux/amd64/v3"):
        choose(path, "linux/amd64/v1")


def test_arm64_is_v8(tmp_path: Path) -> None:
    """With and without the variant, an image for it is found with and without."""
    index = Index()
    plain = index.image("8", architecture="arm64", platform={"os": "linux", "architecture": "arm64", "variant": "v8"})
    index.image("9", architecture="arm64", platform={"os": "linux", "architecture": "arm64", "variant": "v9"})
    path = index.archive(tmp_path)
    assert {choose(path, f"linux/{name}").digest for name in ("arm64", "arm64/v8", "aarch64")} == {plain}


def test_instances_of_one_image(tmp_path: Path) -> None:
    """Compressed in two ways for one platform: the first is taken."""
    index = Index()
    image = Image(tar(file("which", b"one")), compress=False)
    index.whole.blobs |= image.blobs
    first = index.image("one", platform=AMD64)
    index._add(image, {"platform": AMD64, "annotations": {"io.github.containers.compression.zstd": "true"}})
    assert choose(index.archive(tmp_path)).digest == first
    assert choose(index.archive(tmp_path, nested=False)).digest == first  # the config says that they are one image


NO_IMAGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "SOCI": ({"artifactType": "application/vnd.amazon.soci.index.v2+json"}, {"artifactType": "application/vnd.x"}),
    "artifact that only its manifest tells": ({"artifactType": "application/vnd.x"}, {}),
    "config of an artifact": ({"config": EMPTY}, {}),
    "referrer": ({"subject": EMPTY}, {}),
    "signature of cosign": (
        {"layers": [{**EMPTY, "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json"}]},
        {},
    ),
    "nydus": (
        {"layers": [{**EMPTY, "mediaType": "application/vnd.oci.image.layer.nydus.blob.v1"}]},
        {"platform": {**AMD64, "os.features": ["nydus.remoteimage.v1"]}},
    ),
}


@pytest.mark.parametrize("stated", [True, False], ids=["with its platform", "without"])
@pytest.mark.parametrize("kind", NO_IMAGES)
def test_what_is_beside_an_image(tmp_path: Path, kind: str, stated: bool) -> None:
    """It is no image, whether it comes first, is in the index itself, or has a name like one."""
    manifest, descriptor = NO_IMAGES[kind]
    platform: dict[str, Any] = {"platform": AMD64} if stated else {}
    index = Index()
    index.artifact(manifest, **{**platform, **descriptor})
    wanted = index.image("image", **platform)
    assert choose(index.archive(tmp_path)).digest == wanted
    assert choose(index.archive(tmp_path), "linux/amd64").digest == wanted
    path = index.archive(tmp_path, nested=False)
    assert choose(path).digest == wanted
    with open_archive(path, scratch=tmp_path) as archive:
        assert [(name, image.digest) for name, image in select_named(archive)] == [("", wanted)]


def test_an_image_that_refers_to_another(tmp_path: Path) -> None:
    """It is taken when nothing else is there for the platform."""
    index = Index()
    index.image("arm", architecture="arm64", platform={"os": "linux", "architecture": "arm64"})
    referrer = index.artifact({"subject": EMPTY}, platform=AMD64)
    assert choose(index.archive(tmp_path), "linux/amd64").digest == referrer


def test_only_something_else(tmp_path: Path) -> None:
    """An archive without any image says so."""
    index = Index()
    index.artifact({"config": EMPTY}, platform=AMD64)
    with pytest.raises(DataError, match="this is not a container image"):
        choose(index.archive(tmp_path))
    index.artifact({"artifactType": "application/vnd.x"}, platform=AMD64)
    with pytest.raises(DataError, match="this is not a container image"):
        choose(index.archive(tmp_path), "linux/amd64")
    with open_archive(index.archive(tmp_path), scratch=tmp_path) as archive, pytest.raises(DataError, match="no image"):
        select_named(archive)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ({"architecture": "x86_64"}, "linux/amd64"),
        ({"architecture": "AMD64", "os": "Linux"}, "linux/amd64"),
        ({"architecture": "aarch64"}, "linux/arm64"),
        ({"architecture": "amd64", "variant": None}, "linux/amd64"),
        ({"architecture": "arm64", "os": None}, "linux/arm64"),
        ({"architecture": "arm64", "os": ""}, "linux/arm64"),
        ({"architecture": None}, str(Platform.of_host())),
        ({"architecture": "armhf"}, "linux/arm"),
        ({"architecture": "armel"}, "linux/arm/v6"),
    ],
)
def test_spellings_of_platforms(tmp_path: Path, written: dict[str, Any], read: str) -> None:
    """In configs and in indexes: other names of a processor, nothing, and null."""
    config = {"os": "linux", "rootfs": {"type": "layers"}, **written}
    assert str(ImageConfig.parse(json.dumps(config).encode()).platform) == read
    index = Index()
    found = index.image("one", config=written, platform={"os": "linux", **written})
    index.image("other", architecture="s390x", platform={"os": "linux", "architecture": "s390x"})
    assert choose(index.archive(tmp_path), read).digest == found


def test_missing_members_are_this_machine() -> None:
    """As Docker has it; but another operating system stays what it is."""
    rootfs = {"rootfs": {"type": "layers"}}
    assert ImageConfig.parse(json.dumps(rootfs).encode()).platform == Platform.of_host()
    assert ImageConfig.parse(json.dumps({**rootfs, "os": "windows"}).encode()).platform.os == "windows"


@pytest.mark.parametrize(
    "kind",
    [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ],
)
def test_layers_that_may_not_be_given_away(tmp_path: Path, kind: str) -> None:
    """They are layers where their blob is there."""
    image = Image(tar(file("a")))
    image.manifest["layers"][0]["mediaType"] = kind
    assert choose(image.archive(tmp_path / "a.tar")).manifest.layers[0].media_type == media.LAYER_GZIP


def test_config_without_a_type(tmp_path: Path) -> None:
    """Docker's old registries have `application/octet-stream` there; the manifest that is made says what it is."""
    image = Image(tar(file("a")))
    image.config_type = "application/octet-stream"
    chosen = choose(image.archive(tmp_path / "a.tar"))
    assert Manifest.parse(chosen.manifest.encode()).config.media_type == media.CONFIG


def test_skopeo_makes_of_it_what_we_take(tmp_path: Path) -> None:
    """containers/image chooses the same instance among plain, v2 and zstd ones as we do."""
    index = Index()
    index.image("v2", platform={**AMD64, "variant": "v2"})
    plain = index.image("plain", platform=AMD64)
    path = index.archive(tmp_path)
    command = ["skopeo", "--override-os=linux", "--override-arch=amd64", "inspect", "--raw", "--config"]
    done = subprocess.run([*command, f"oci-archive:{path}"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == choose(path, "linux/amd64").config.raw
    assert choose(path, "linux/amd64").digest == plain
