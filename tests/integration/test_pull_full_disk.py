"""A disk that is full at any moment of a pull: one error, what is there is whole, and the blob that did not fit is
gone.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.budget import Limits
from shed.errors import StorageError
from shed.images.annotations import blobs_of
from shed.images.mint import mint_archive
from shed.images.pull import pull_image
from shed.images.push import push_image
from shed.images.resolve import resolve_image
from shed.oci.digest import Digest
from shed.oci.partial import partials
from shed.oci.store import LayoutStore
from support.images.minted import LAYER, small_kit
from support.layers.tars import Image, file, folder, tar
from support.registries.docker_registry import docker_registry, no_credentials

MOMENTS = 12
BIG = tar(folder("usr"), *(file(f"usr/{number}", os.urandom(1_000_000)) for number in range(8)))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def resize(disk: Path, size: int) -> None:
    """Let the disk hold `size` bytes."""
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


@pytest.mark.root
def test_a_full_disk_at_any_moment(tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blob that filled it leaves no part, sound blobs stay, nothing is named; with room, the next pull succeeds."""
    no_credentials(monkeypatch, tmp_path)
    made = LayoutStore(tmp_path / "images")
    digest: Digest = mint_archive(
        made, Image(LAYER, BIG, compress=False).archive(tmp_path / "a.tar"), "app", kit=small_kit(made)
    ).manifest_digest
    manifest = made.read_manifest(digest)
    wanted = blobs_of(digest, manifest) - {digest, manifest.config.digest}
    size = sum(map(made.size, made.blob_digests()))
    with docker_registry(tmp_path / "registry") as registry:
        reference = f"{registry.address}/full/app:v1"
        push_image(made, "app", reference)
        for number in range(MOMENTS):
            store, room = LayoutStore(disk / f"store{number}", Limits(disk_reserve=0)), random.randrange(64 << 10, size)
            resize(disk, room)
            with pytest.raises(StorageError, match=r"No space left on device|too little space"):
                pull_image(store, reference, with_layers=True)
            assert (store.tag_names(), store.index().manifests) == ([], ()), room
            assert wanted - store.inventory().keys() - partials(store.blobs).keys(), room
            for blob in store.blob_digests():
                store.verify(blob, again=True)
            resize(disk, 2 * size)
            assert pull_image(store, reference, with_layers=True).digest == digest, room
            assert resolve_image(store, "app", verify=True, trusted=None).digest == digest
            subprocess.run(["rm", "-r", store.root], check=True)
