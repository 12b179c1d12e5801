"""The gate refuses what mounts and passes fsck, but is not the tree that went in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from shed.entries import Entry
from shed.erofs.errors import ErofsError
from shed.erofs.reader import Image as ErofsImage
from shed.images.mint import mint_archive
from shed.images.writers import BuiltinWriter
from shed.oci.staging import StagedBlob
from shed.oci.store import LayoutStore
from support.erofs.images import forget_big_clusters
from support.erofs.trees import text
from support.images.minted import small_kit
from support.layers.tars import Image, file, tar


class ForgettingWriter(BuiltinWriter):
    """Writes what mkfs.erofs 1.7.1 wrote."""

    nid = 0

    def write(self, entries: Sequence[Entry], blob: StagedBlob, on_bytes: Callable[[int], None]) -> None:
        super().write(entries, blob, on_bytes)
        with ErofsImage.open(blob.path) as image:
            self.nid = image.lookup(b"large").nid
        forget_big_clusters(blob.path)


def test_the_bug_of_erofs_utils_1_7_1_is_refused_with_the_inode(tmp_path: Path) -> None:
    """A writer that forgets a feature flag gets nothing into the store."""
    store = LayoutStore(tmp_path / "images")
    archive = Image(tar(file("large", text(300_000)))).archive(tmp_path / "archive.tar")
    writer = ForgettingWriter()
    with pytest.raises(ErofsError) as caught:
        mint_archive(store, archive, "base", kit=small_kit(store), writer=writer)
    assert (caught.value.rule, caught.value.nid) == ("big-pcluster-undeclared", writer.nid)
    assert f"inode {writer.nid} (/large)" in caught.value.message
    assert store.tag_names() == []
    assert list(store.blobs.glob(".staging-*")) == []
