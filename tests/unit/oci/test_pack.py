"""Packing archives: the same input gives the same bytes, and what comes out is an image."""

from pathlib import Path

import pytest

from shed.oci.archive import open_archive
from shed.oci.choose import choose_image
from shed.oci.descriptor import Platform
from shed.oci.pack import Compression, pack_archive
from support.tars import file, tar


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_packed_image_is_read_back(tmp_path: Path, compression: Compression) -> None:
    """Platform, settings, layers and the name survive; a second run gives the same file."""
    layers = [tmp_path / "0.tar", tmp_path / "1.tar"]
    for number, layer in enumerate(layers):
        layer.write_bytes(tar(file(f"f{number}", b"x" * 100_000)))
    made = [
        pack_archive(
            tmp_path / name, layers, settings={"User": "shed"}, platform=Platform("linux", "arm64"), name="base", compression=compression
        )
        for name in ("a", "b")
    ]
    assert made[0] == made[1]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with open_archive(tmp_path / "a", scratch=tmp_path) as archive:
        chosen = choose_image(archive, Platform("linux", "arm64"))
    assert chosen.digest == made[0]
    assert chosen.config.settings == {"User": "shed"}
    assert len(chosen.manifest.layers) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"0.tar", "1.tar", "a", "b"}


def test_failed_packing_leaves_nothing(tmp_path: Path) -> None:
    """A layer that cannot be read leaves no archive behind."""
    with pytest.raises(FileNotFoundError):
        pack_archive(tmp_path / "out.tar", [tmp_path / "missing.tar"])
    assert list(tmp_path.iterdir()) == []
