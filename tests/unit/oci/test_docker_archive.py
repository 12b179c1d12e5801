"""Archives as `docker save` writes them: the image in them, and what is wrong with others."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from shed.errors import DataError
from shed.images.mint import mint_archive
from shed.oci import media
from shed.oci.archive import open_archive
from shed.oci.digest import digest_bytes, hex_of
from shed.oci.pack import repack_archive
from shed.oci.selection import select_image
from shed.oci.store import LayoutStore
from support.images.minted import LAYER, small_kit
from support.layers.tars import Image, Item, file, symlink, tar

UPPER = tar(file("etc/hostname", b"x\n"))
EMPTY = tar()


class Saved:
    """A docker archive, every part of which a test can bend before it is written."""

    def __init__(self, *layers: bytes) -> None:
        self.image = Image(*layers, compress=False)
        self.config = json.dumps(self.image.config).encode()
        self.name = hex_of(digest_bytes(self.config)) + ".json"
        self.layers: dict[str, Item] = {}
        first: dict[bytes, str] = {}
        for number, layer in enumerate(layers):
            path = f"{number}/layer.tar"
            self.layers[path] = file(path, layer) if layer not in first else symlink(path, f"../{first[layer]}")
            first.setdefault(layer, path)
        self.manifest: Any = [{"Config": self.name, "RepoTags": ["a.example/b:1"], "Layers": list(self.layers)}]

    def write(self, path: Path) -> Path:
        """Write the archive."""
        items = [
            file(self.name, self.config),
            *self.layers.values(),
            file("manifest.json", json.dumps(self.manifest).encode()),
        ]
        path.write_bytes(tar(*items))
        return path


def test_names_with_a_dot_before_them(tmp_path: Path) -> None:
    """`./` in manifest.json, in the tar, or in both: Bazel, kaniko and tar write them."""
    wanted = image_of(Saved(LAYER, UPPER).write(tmp_path / "plain.tar"), tmp_path)
    for in_manifest, in_tar in (("./", ""), ("", "./"), ("./", "./"), (".//", "././")):
        saved = Saved(LAYER, UPPER)
        saved.manifest[0]["Config"] = in_manifest + saved.name
        saved.manifest[0]["Layers"] = [in_manifest + path for path in saved.layers]
        for info, _ in saved.layers.values():
            info.name = in_tar + info.name
        saved.name = in_tar + saved.name
        assert image_of(saved.write(tmp_path / "dots.tar"), tmp_path) == wanted


def test_names_that_lead_out_of_a_folder(tmp_path: Path) -> None:
    """A folder that is read as an archive is all that is read, whatever its manifest.json names."""
    (tmp_path / "secret").write_bytes(b"{}")
    (tmp_path / "saved").mkdir()
    for path in ("../secret", "./../secret", str(tmp_path / "secret")):
        manifest = json.dumps([{"Config": path, "Layers": []}])
        (tmp_path / "saved/manifest.json").write_text(manifest)
        with pytest.raises(DataError, match="image config is missing"):
            image_of(tmp_path / "saved", tmp_path)


def image_of(path: Path, scratch: Path) -> Any:
    """Return what is chosen from an archive."""
    with open_archive(path, scratch=scratch) as opened:
        return select_image(opened).manifest


def test_it_gives_the_image_that_an_oci_archive_gives(tmp_path: Path) -> None:
    """With plain layers: the same manifest, byte for byte, whatever brought it."""
    image = Image(LAYER, UPPER, compress=False)
    results = []
    for number, source in enumerate(
        (Saved(LAYER, UPPER).write(tmp_path / "docker.tar"), image.archive(tmp_path / "oci.tar"))
    ):
        store = LayoutStore(tmp_path / str(number))
        results.append(mint_archive(store, source, "base", kit=small_kit(store)).manifest_digest)
    assert results[0] == results[1]


def test_layers_that_are_the_same_are_links(tmp_path: Path) -> None:
    """Docker before 25 stores such a layer once; the links are not followed."""
    store = LayoutStore(tmp_path / "images")
    source = Saved(LAYER, EMPTY, UPPER, EMPTY).write(tmp_path / "a.tar")
    result = mint_archive(store, source, "base", kit=small_kit(store))
    layers = store.read_manifest(result.manifest_digest).layers
    assert [layer.digest for layer in layers] == [digest_bytes(layer) for layer in (LAYER, EMPTY, UPPER, EMPTY)]


def test_compressed_layers(tmp_path: Path) -> None:
    """Other tools compress them: then the digest is that of the bytes there."""
    saved = Saved(LAYER)
    packed = gzip.compress(LAYER, 1)
    saved.layers["0/layer.tar"] = file("0/layer.tar", packed)
    store = LayoutStore(tmp_path / "images")
    result = mint_archive(store, saved.write(tmp_path / "a.tar"), "base", kit=small_kit(store))
    (layer,) = store.read_manifest(result.manifest_digest).layers
    assert (layer.media_type, layer.digest) == (media.LAYER_GZIP, digest_bytes(packed))


def test_it_becomes_an_oci_archive(tmp_path: Path) -> None:
    """The same image, in a file that other tools read as OCI."""
    with open_archive(Saved(LAYER, EMPTY, EMPTY).write(tmp_path / "a.tar"), scratch=tmp_path) as archive:
        repack_archive(archive, tmp_path / "b.tar")
        chosen = select_image(archive)
    with open_archive(tmp_path / "b.tar", scratch=tmp_path) as archive:
        assert select_image(archive) == chosen


def _other_layer(saved: Saved) -> None:
    saved.layers["0/layer.tar"] = file("0/layer.tar", UPPER)


def _other_config(saved: Saved) -> None:
    saved.config += b" "


def _no_layer(saved: Saved) -> None:
    del saved.layers["0/layer.tar"]


def _link(saved: Saved) -> None:
    saved.layers["0/layer.tar"] = symlink("0/layer.tar", "/etc/passwd")


@pytest.mark.parametrize(
    ("bend", "problem"),
    [
        (_other_layer, "layer 1, blob: digest mismatch"),
        (_other_config, "image config: digest mismatch"),
        (_no_layer, "the layer 0/layer.tar is missing"),
        (_link, "0/layer.tar is not a regular file"),
        (lambda saved: saved.manifest[0]["Layers"].append("x"), "the config lists 1 layers, manifest.json 2"),
        (lambda saved: saved.manifest[0].pop("Config"), "'Config' is missing"),
        (lambda saved: saved.manifest[0].update(Config="../../etc/passwd"), "image config is missing"),
        (lambda saved: saved.manifest[0].update(RepoTags="x"), "'RepoTags' is not a list of at most 4096 strings"),
        (lambda saved: setattr(saved, "manifest", {}), "'images' is not a list"),
        (lambda saved: setattr(saved, "manifest", [7]), "is not a JSON object"),
        (lambda saved: setattr(saved, "manifest", []), "holds no image"),
    ],
    ids=["layer", "config", "no layer", "link", "count", "no config", "path", "tags", "object", "number", "none"],
)
def test_what_is_wrong_is_told(tmp_path: Path, bend: Any, problem: str) -> None:
    """In one sentence that names the archive."""
    saved = Saved(LAYER)
    bend(saved)
    store = LayoutStore(tmp_path / "images")
    with pytest.raises(DataError, match=problem) as caught:
        mint_archive(store, saved.write(tmp_path / "bad.tar"), "base", kit=small_kit(store))
    assert "bad.tar" in caught.value.message
    assert caught.value.hint
