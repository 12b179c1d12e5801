"""Images of the store that a Containerfile builds on: which are meant, and what the builder is given."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from shed.errors import DataError, NotFoundError, UnavailableError, UsageError
from shed.images.builders import tools
from shed.images.builders.base import BuildRequest
from shed.images.builders.bases import FOLDER, Base, Layout, find_bases, lay_out, write_docker_archive
from shed.images.builders.build import built
from shed.images.builders.tools import Docker
from shed.oci.archive import open_archive
from shed.oci.digest import Digest
from shed.oci.selection import select_image
from shed.oci.store import LayoutStore
from support.images.minted import digest_of, mint_small


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    """A store with the images full and mine."""
    store = LayoutStore(tmp_path / "store")
    for name in ("full", "mine"):
        mint_small(store, tmp_path, name)
    return store


def containerfile(folder: Path, text: str) -> Path:
    """Write a Containerfile."""
    path = folder / "Containerfile"
    path.write_text(text)
    return path


def test_names_of_the_store_are_found(store: LayoutStore, tmp_path: Path) -> None:
    """By NAME and NAME:latest; other tags, registries and stages are the builder's."""
    text = (
        "ARG B=full\nFROM ${B} AS one\nFROM full\nFROM full:latest\nFROM full:v2\nFROM reg.example/mine\nFROM nope\n"
        "FROM alpine AS two\nFROM two\nCOPY --from=mine / /\n"
    )
    assert find_bases(containerfile(tmp_path, text), {}, store) == (
        Base("full", ("${B}", "full", "full:latest"), digest_of(store, "full")),
        Base("mine", ("mine",), digest_of(store, "mine")),
    )


def test_a_stage_wins_over_an_image(store: LayoutStore, tmp_path: Path) -> None:
    """Where the name can only mean the stage.  Where it means both, nobody guesses: BuildKit would drop the stage."""
    file = containerfile(tmp_path, "FROM alpine AS full\nRUN x\nFROM full\nCOPY --from=full / /\n")
    assert find_bases(file, {}, store) == ()
    with pytest.raises(UsageError, match=r"full in .* is an image of this store and also a stage"):
        find_bases(containerfile(tmp_path, "FROM full AS Full\nFROM full\n"), {}, store)


def test_a_file_that_is_no_text(store: LayoutStore, tmp_path: Path) -> None:
    """Is told of, in one sentence."""
    (tmp_path / "f").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is no text"):
        find_bases(tmp_path / "f", {}, store)


def test_the_layout_has_the_image_without_what_it_boots_from(store: LayoutStore, tmp_path: Path) -> None:
    """The same config and layers by links; what is built on it must not seem to boot what its base boots."""
    base = Base("full", ("full",), digest_of(store, "full"))
    source = store.read_manifest(base.digest)
    assert "io.shed.rootfs.erofs.digest" in source.annotations
    with store.lease() as lease:
        layout = lay_out(base, tmp_path, store, lease)
        assert lay_out(base, tmp_path, store, lease) == layout
    copy = LayoutStore(tmp_path / layout.path)
    manifest = copy.read_manifest(layout.digest)
    assert (manifest.config, manifest.layers) == (source.config, source.layers)
    assert not [key for key in manifest.annotations if key.startswith("io.shed.")]
    assert all(copy.intact(blob.digest) for blob in (manifest.config, *manifest.layers))
    index = json.loads((tmp_path / layout.path / "index.json").read_text())
    assert [entry["digest"] for entry in index["manifests"]] == [layout.digest]


def test_an_image_that_cannot_be_built_on(store: LayoutStore, tmp_path: Path) -> None:
    """Without its layers, or with damaged ones: told before the builder begins."""
    base = Base("full", ("full",), digest_of(store, "full"))
    layer = store.blob_path(store.read_manifest(base.digest).layers[0].digest)
    data = layer.read_bytes()
    layer.unlink()
    with store.lease() as lease, pytest.raises(NotFoundError, match="its layers are not in this store") as caught:
        lay_out(base, tmp_path, store, lease)
    assert "--with-layers" in (caught.value.hint or "")
    layer.write_bytes(data[:-1] + b"x")
    with store.lease() as lease, pytest.raises(DataError):
        lay_out(base, tmp_path, store, lease)


def test_what_builders_are_told(tmp_path: Path) -> None:
    """BuildKit takes names with arguments put in, the others as they are written, and a path that makes a good name."""
    digest = Digest("sha256:" + "a" * 64)
    layout = Layout(Base("full", ("${B}", "full"), digest), tmp_path, f"{FOLDER}/abc", digest, digest)
    request = BuildRequest(tmp_path, tmp_path / "f", "dev", layouts=(layout,))
    build = [str(word) for word in tools.storage_build_command("podman", request, tmp_path / "id")]
    for word in ("${B}", "full"):
        assert f"{word}=container-image://oci:shed-from/abc:localhost/shed-from/abc" in build
    export = [str(word) for word in tools.docker_export_command(request, tmp_path / "o")]
    assert export[export.index("--build-context") + 1] == f"full=oci-layout://{tmp_path}/shed-from/abc@{digest}"
    assert export.count("--build-context") == 1


def test_what_docker_loads(store: LayoutStore, tmp_path: Path) -> None:
    """The engine's old image store takes no layouts, but a file like `docker save` writes: the same image is in it."""
    with store.lease() as lease:
        layout = lay_out(Base("full", ("full",), digest_of(store, "full")), tmp_path, store, lease)
    write_docker_archive(layout, tmp_path / "base.tar", "shed-from:abc")
    with open_archive(tmp_path / "base.tar", scratch=tmp_path) as archive:
        chosen = select_image(archive)
        assert chosen.manifest.config.digest == store.read_manifest(layout.base.digest).config.digest
        assert len(chosen.manifest.layers) == 1
    with tarfile.open(tmp_path / "base.tar") as file:
        assert all(member.isfile() for member in file)
        document = file.extractfile("manifest.json")
        assert document is not None
        assert json.load(document)[0]["RepoTags"] == ["shed-from:abc"]


ENGINE = """#!/bin/sh
# A docker 26 with buildx and the engine's old image store, as far as a build asks it.  Strict: knows nothing else.
echo "$*" >>"$LOG"
case "$*" in
    "version --format {{.Server.Version}}") echo 26.1.5 ;;
    "buildx version") echo v0.13.1 ;;
    "buildx inspect") printf 'Name: default\\nDriver: docker\\n' ;;
    "info --format {{.DriverStatus}}") echo '[[Backing Filesystem extfs]]' ;;
    "image inspect --format {{.Id}} shed-from:"*) [ -e "$LOADED" ] ;;
    "load --quiet --input "*) cp "$4" "$LOADED" ;;
    "buildx build --load --build-context full=docker-image://shed-from:"*" --iidfile "*)
        while [ "$1" != --iidfile ]; do shift; done
        echo sha256:built >"$2" ;;
    "save --output "*" sha256:built") cp "$LOADED" "$3" ;;
    *) echo "not known here: $*" >&2; exit 64 ;;
esac
"""


def test_docker_with_the_old_image_store(store: LayoutStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image is loaded once, and named in place of the Containerfile's name; the classic builder is refused."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/docker").write_text(ENGINE)
    (tmp_path / "bin/docker").chmod(0o755)
    log = tmp_path / "log"
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setattr("shed.images.builders.base._PASSED", ("LOG", "LOADED", "DOCKER_BUILDKIT"))
    monkeypatch.setenv("LOG", str(log))
    monkeypatch.setenv("LOADED", str(tmp_path / "loaded.tar"))
    monkeypatch.delenv("DOCKER_BUILDKIT", raising=False)
    file = containerfile(tmp_path, "FROM full\n")
    request = BuildRequest(tmp_path, file, "dev")
    bases = find_bases(file, {}, store)
    for _ in range(2):
        with built(Docker(), request, store, None, bases=bases) as archive:
            assert select_image(archive).config.platform.os == "linux"
    assert log.read_text().count("load --quiet") == 1
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")
    with (
        pytest.raises(UnavailableError, match="classic builder cannot"),
        built(Docker(), request, store, None, bases=bases),
    ):
        pass
