"""Images from outside: archives, folders, pipes; the right image is chosen, and nothing hostile gets in."""

import gzip
import io
import json
import lzma
import os
import tarfile
import threading
from pathlib import Path

import pytest
import zstandard

from shed.errors import DataError, NotFoundError, UsageError
from shed.oci import media
from shed.oci.archive import open_archive
from shed.oci.descriptor import Platform
from shed.oci.digest import hex_of
from shed.oci.selection import SelectedImage, select_image
from support.layers.tars import Image, file, hardlink, symlink, tar

LAYER = tar(file("a", b"data"))


def choose(path: Path | str, platform: str | None = None) -> SelectedImage:
    """Return the image that is chosen from the archive."""
    scratch = Path(path).parent if str(path) != "-" else Path("/tmp")
    with open_archive(path, scratch=scratch) as archive:
        return select_image(archive, Platform.parse(platform) if platform else None)


def test_archive_and_folder(tmp_path: Path) -> None:
    """The same image is found in a tar file and in a folder."""
    image = Image(LAYER)
    chosen = choose(image.archive(tmp_path / "a.tar"))
    assert chosen == choose(image.layout(tmp_path / "layout"))
    assert chosen.config.settings == {"Cmd": ["sh"]}
    assert len(chosen.manifest.layers) == 1


def xz_in_streams(data: bytes) -> bytes:
    """Return `data` as `pixz` and ``cat a.xz b.xz`` have it: streams with padding between and behind them."""
    return lzma.compress(data[:1000]) + bytes(8) + lzma.compress(data[1000:]) + bytes(4)


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress, lzma.compress, xz_in_streams])
def test_compressed_archive(tmp_path: Path, compress: object) -> None:
    """An archive that was compressed as a whole is unpacked on the way."""
    path = Image(LAYER).archive(tmp_path / "a.tar")
    wanted = choose(path)
    path.write_bytes(compress(path.read_bytes()))  # type: ignore[operator]
    assert choose(path) == wanted


def test_pipe(tmp_path: Path) -> None:
    """What cannot be read by position is read once."""
    data = Image(LAYER).archive(tmp_path / "a.tar").read_bytes()
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,))
    writer.start()
    chosen = choose(tmp_path / "pipe")
    writer.join()
    assert chosen == choose(tmp_path / "a.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "pipe"]


def test_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` is standard input."""
    data = Image(LAYER).archive(tmp_path / "a.tar").read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert choose("-") == choose(tmp_path / "a.tar")


def test_docker_media_types(tmp_path: Path) -> None:
    """An image in Docker's schema 2 is the same image."""
    chosen = choose(Image(LAYER, media_types="docker").archive(tmp_path / "a.tar"))
    assert chosen.manifest.config.media_type == media.CONFIG


def test_docker_archive_that_is_also_oci(tmp_path: Path) -> None:
    """Newer Docker writes both in one file."""
    image = Image(LAYER)
    image.files["manifest.json"] = b"[]"
    assert choose(image.archive(tmp_path / "a.tar")).manifest


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is empty"),
        (b"not a tar archive at all" * 100, "not a readable tar archive"),
        (LAYER, "no index.json"),
        (gzip.compress(LAYER)[:-9], "damaged"),
        (b"\x1f\x8bgarbage", "damaged"),
        (b"BZh91AY&SY", "bzip2 compression is not supported"),
        (lzma.compress(LAYER)[:-9], "damaged"),
        (lzma.compress(LAYER) + b"garbage", "damaged"),
        (lzma.compress(LAYER, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30}]), "needs too much memory"),
    ],
    ids=[
        "empty",
        "garbage",
        "root file system",
        "cut gzip",
        "broken gzip",
        "bzip2",
        "cut xz",
        "xz and garbage",
        "large xz",
    ],
)
def test_what_is_no_image(tmp_path: Path, data: bytes, problem: str) -> None:
    """Other files are told apart in words."""
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(DataError, match=problem):
        choose(tmp_path / "x")


def test_missing_file(tmp_path: Path) -> None:
    """A path that is not there, and one that may not be read."""
    with pytest.raises(NotFoundError, match=r"nothing\.tar does not exist"):
        choose(tmp_path / "nothing.tar")
    with pytest.raises(DataError, match="is not an OCI image"):
        choose(tmp_path)


def test_missing_and_short_blobs(tmp_path: Path) -> None:
    """A blob that is not there, or of another size than its descriptor says."""
    image = Image(LAYER)
    entry = image.seal()
    data = image.blobs.pop(hex_of(entry["digest"]))
    with pytest.raises(DataError, match=r"image manifest sha256:\w{12} is missing"):
        choose(image.archive(tmp_path / "a.tar"))
    image.blobs[hex_of(entry["digest"])] = data + b" "
    with pytest.raises(DataError, match=f"has {len(data) + 1} bytes, expected {len(data)}"):
        choose(image.archive(tmp_path / "a.tar"))
    image.blobs[hex_of(entry["digest"])] = data.replace(b"layers", b"LAYERS")
    with pytest.raises(DataError, match="digest mismatch"):
        choose(image.archive(tmp_path / "a.tar"))


@pytest.mark.parametrize("make", [symlink, hardlink])
def test_links_in_archives_are_refused(tmp_path: Path, make: object) -> None:
    """A blob or index that is a link, to outside or not, is not followed."""
    image = Image(LAYER)
    entry = image.seal()
    name = f"blobs/sha256/{hex_of(entry['digest'])}"
    with pytest.raises(DataError, match="is not a regular file"):
        choose(image.archive(tmp_path / "a.tar", make(name, "/etc/passwd")))  # type: ignore[operator]
    with pytest.raises(DataError, match=r"index\.json is not a regular file"):
        choose(image.archive(tmp_path / "a.tar", make("index.json", "/etc/passwd")))  # type: ignore[operator]


def test_names_in_archives_are_never_paths(tmp_path: Path) -> None:
    """Members with names that climb out are looked at by nobody, and nothing is written."""
    image = Image(LAYER)
    before = sorted(path.name for path in tmp_path.parent.iterdir())
    assert choose(image.archive(tmp_path / "a.tar", file("../../evil", b"x"), file("/etc/evil", b"x"))).manifest
    assert sorted(path.name for path in tmp_path.parent.iterdir()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def test_folder_with_a_fifo_does_not_hang(tmp_path: Path) -> None:
    """Something else in a blob's place is an error at once."""
    image = Image(LAYER)
    entry = image.seal()
    image.layout(tmp_path / "layout")
    blob = tmp_path / "layout/blobs/sha256" / hex_of(entry["digest"])
    blob.unlink()
    os.mkfifo(blob)
    with pytest.raises(DataError, match="is not a regular file"):
        choose(tmp_path / "layout")


def attestation(image: Image, subject: str) -> dict[str, object]:
    """Add what buildx adds for an image: a manifest that is no image."""
    other = {"schemaVersion": 2, "config": image.blob(b"{}", media.CONFIG), "layers": []}
    annotations = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": subject}
    blob = image.blob(json.dumps(other).encode(), media.MANIFEST)
    return blob | {"annotations": annotations, "platform": {"os": "unknown", "architecture": "unknown"}}


def test_buildx_archive(tmp_path: Path) -> None:
    """An index within the index, with an attestation beside the image: the image is taken."""
    image = Image(LAYER)
    entry = image.seal(platform={"os": "linux", "architecture": "amd64"})
    inner = {"schemaVersion": 2, "manifests": [attestation(image, entry["digest"]), entry]}
    image.index["manifests"] = [image.blob(json.dumps(inner).encode(), media.INDEX)]
    assert choose(image.archive(tmp_path / "a.tar")).digest == entry["digest"]


def several(path: Path, *architectures: str, stated: bool = True) -> Path:
    """Write an archive of one image for each architecture."""
    whole = Image(LAYER)
    for number, architecture in enumerate(architectures):
        image = Image(tar(file(f"f{number}")), architecture=architecture)
        entry = image.seal(**({"platform": {"os": "linux", "architecture": architecture}} if stated else {}))
        whole.blobs |= image.blobs
        whole.index["manifests"].append(entry)
    return whole.archive(path)


@pytest.mark.parametrize("stated", [True, False], ids=["platform in the index", "platform in the config"])
def test_platform_decides(tmp_path: Path, stated: bool) -> None:
    """Among several images the asked-for platform is taken, or this machine's."""
    path = several(tmp_path / "a.tar", "amd64", "arm64", "riscv64", stated=stated)
    assert choose(path, "linux/riscv64").config.platform.architecture == "riscv64"
    assert choose(path).config.platform == Platform.of_host()
    with pytest.raises(UsageError, match="no image for linux/s390x, only for linux/amd64, linux/arm64, linux/riscv64"):
        choose(path, "linux/s390x")


def test_single_image_needs_no_platform(tmp_path: Path) -> None:
    """One image is taken whatever it is for, unless another platform is asked for."""
    path = several(tmp_path / "a.tar", "s390x")
    assert choose(path).config.platform.architecture == "s390x"
    with pytest.raises(UsageError, match="no image for linux/amd64, only for linux/s390x"):
        choose(path, "linux/amd64")


def test_two_images_for_one_platform(tmp_path: Path) -> None:
    """It is not guessed which is meant; two tags of one image are one image."""
    with pytest.raises(UsageError, match="holds 2 images for linux/amd64"):
        choose(several(tmp_path / "a.tar", "amd64", "amd64"), "linux/amd64")
    image = Image(LAYER)
    image.seal()
    image.seal(annotations={"org.opencontainers.image.ref.name": "other"})
    assert choose(image.archive(tmp_path / "b.tar")).manifest


def test_index_that_lies_about_the_platform(tmp_path: Path) -> None:
    """The config has the last word."""
    image = Image(LAYER, architecture="arm64")
    image.seal(platform={"os": "linux", "architecture": "amd64"})
    with pytest.raises(DataError, match="the index promises linux/amd64, the config says linux/arm64"):
        choose(image.archive(tmp_path / "a.tar"), "linux/amd64")


def test_empty_index_and_foreign_content(tmp_path: Path) -> None:
    """No image, an artifact that is no image, a layer of an unknown kind, a config that does not fit."""
    image = Image(LAYER)
    image.seal()
    image.index["manifests"] = [{"mediaType": "application/x", "digest": "sha256:" + "0" * 64, "size": 1}]
    with pytest.raises(DataError, match="holds no image"):
        choose(image.archive(tmp_path / "a.tar"))
    artifact = Image(LAYER)
    artifact.config_type = "application/vnd.cncf.helm.config.v1+json"
    with pytest.raises(DataError, match="this is not a container image"):
        choose(artifact.archive(tmp_path / "b.tar"))
    encrypted = Image(LAYER)
    encrypted.manifest["layers"][0]["mediaType"] += "+encrypted"
    with pytest.raises(DataError, match="layer 1 has the unsupported media type"):
        choose(encrypted.archive(tmp_path / "c.tar"))
    short = Image(LAYER)
    short.config["rootfs"]["diff_ids"] = []
    with pytest.raises(DataError, match="the config lists 0 layers, the manifest 1"):
        choose(short.archive(tmp_path / "d.tar"))


def test_nested_indexes_end(tmp_path: Path) -> None:
    """Indexes within indexes are followed a few steps; one that is listed many times is read once."""
    image = Image(LAYER)
    entry = image.seal()
    for _ in range(4):
        entry = image.blob(json.dumps({"schemaVersion": 2, "manifests": [entry] * 1000}).encode(), media.INDEX)
    image.index["manifests"] = [entry] * 1000
    assert choose(image.archive(tmp_path / "a.tar")).manifest
    image.index["manifests"] = [
        image.blob(json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(), media.INDEX)
    ]
    with pytest.raises(DataError, match="nested too deeply"):
        choose(image.archive(tmp_path / "b.tar"))


def test_archive_in_every_tar_format(tmp_path: Path) -> None:
    """Who wrote the tar does not matter."""
    image = Image(LAYER)
    image.seal()
    for number in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(tar(*(file(f"./{name}", data) for name, data in image.names().items()), format=number))
        assert choose(path).manifest
