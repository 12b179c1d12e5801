"""Packing archives: the same input gives the same bytes, and what comes out is an image."""

from pathlib import Path

import pytest

from shed.errors import DataError
from shed.oci.archive import open_archive, open_blob
from shed.oci.descriptor import Platform
from shed.oci.pack import Compression, pack_archive
from shed.oci.selection import select_image
from support.layers.tars import file, tar


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_packed_image_is_read_back(tmp_path: Path, compression: Compression) -> None:
    """Platform, settings, layers and the name survive; a second run gives the same file."""
    layers = [tmp_path / "0.tar", tmp_path / "1.tar"]
    for number, layer in enumerate(layers):
        layer.write_bytes(tar(file(f"f{number}", b"x" * 100_000)))
    made = [
        pack_archive(
            tmp_path / name,
            layers,
            settings={"User": "shed"},
            platform=Platform("linux", "arm64"),
            name="base",
            compression=compression,
        )
        for name in ("a", "b")
    ]
    assert made[0] == made[1]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with open_archive(tmp_path / "a", scratch=tmp_path) as archive:
        chosen = select_image(archive, Platform("linux", "arm64"))
    assert chosen.digest == made[0]
    assert chosen.config.settings == {"User": "shed"}
    assert len(chosen.manifest.layers) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"0.tar", "1.tar", "a", "b"}


def test_failed_packing_leaves_nothing(tmp_path: Path) -> None:
    """A layer that cannot be read leaves no archive behind."""
    with pytest.raises(FileNotFoundError):
        pack_archive(tmp_path / "out.tar", [tmp_path / "missing.tar"])
    assert list(tmp_path.iterdir()) == []


def test_an_image_on_another_has_its_layers_as_they_are(tmp_path: Path) -> None:
    """The parent's descriptors, diffIDs and platform come first; its blobs are in the archive too."""
    for number in range(2):
        (tmp_path / f"{number}.tar").write_bytes(tar(file(f"f{number}", b"x" * 100_000)))
    pack_archive(
        tmp_path / "lower",
        [tmp_path / "0.tar"],
        platform=Platform("linux", "arm64"),
        compression="zstd",
        created_by="one",
    )
    with open_archive(tmp_path / "lower", scratch=tmp_path) as archive:
        lower = select_image(archive)
        pack_archive(tmp_path / "upper", [tmp_path / "1.tar"], parent=(archive, lower), created_by="two")
    with open_archive(tmp_path / "upper", scratch=tmp_path) as archive:
        upper = select_image(archive)
        assert open_blob(archive, lower.manifest.layers[0], "layer").size == lower.manifest.layers[0].size
    assert upper.manifest.layers[:1] == lower.manifest.layers
    assert upper.config.diff_ids[:1] == lower.config.diff_ids
    assert upper.config.platform == lower.config.platform
    assert [step["created_by"] for step in upper.config.raw["history"]] == ["one", "two"]


def test_a_damaged_parent_is_refused(tmp_path: Path) -> None:
    """Its layer is compared with its digest on the way; no archive is left."""
    (tmp_path / "0.tar").write_bytes(tar(file("f", b"x" * 100_000)))
    pack_archive(tmp_path / "lower", [tmp_path / "0.tar"], compression="none")
    data = (tmp_path / "lower").read_bytes()
    (tmp_path / "lower").write_bytes(data.replace(b"x" * 1000, b"y" * 1000, 1))
    with open_archive(tmp_path / "lower", scratch=tmp_path) as archive:
        with pytest.raises(DataError, match="digest mismatch"):
            pack_archive(tmp_path / "upper", [], parent=(archive, select_image(archive)))
    assert not (tmp_path / "upper").exists()
