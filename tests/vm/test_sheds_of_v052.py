"""A store that v0.5.2 of the implementation in Go left, with an image that boots here: a shed is made from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from shed.images.annotations import blobs_of
from shed.oci.digest import hex_of
from shed.oci.store import LayoutStore
from support.images.store_v052 import StoreV052
from support.vms.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_shed_from_it(way: str, small_store: LayoutStore, tmp_path: Path) -> None:
    """Created by tag, without a registry; a prune then leaves what it needs, and the shed starts again."""
    left, tag = StoreV052(tmp_path / "data"), small_store.tag("busybox")
    assert tag is not None
    blobs = blobs_of(tag.digest, small_store.read_manifest(tag.digest))
    manifest = small_store.read_bytes(tag.digest)
    left.put_image(manifest, [small_store.blob_path(blob).read_bytes() for blob in blobs], "base")
    machine = Machine(tmp_path, way=way)
    try:
        machine.shed("create", "dev", "--image", "base")
        assert machine.shed("exec", "dev", "--", "cat", "/etc/hostname") == "dev\n"
        machine.shed("stop", "dev")
        (left.root / "tags/base.json").unlink()
        machine.shed("image", "prune", "--force")
        assert all((left.blobs / hex_of(blob)).exists() for blob in blobs)
        machine.shed("start", "dev")
        assert machine.shed("exec", "dev", "--", "cat", "/etc/hostname") == "dev\n"
    finally:
        machine.end()
