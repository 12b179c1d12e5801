"""An image that came as a file boots on another machine."""

from pathlib import Path

import pytest

from shed.images.save import save_to_file
from shed.oci.store import LayoutStore
from support.vms.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]


def test_save_load_create(way: str, small_store: LayoutStore, tmp_path: Path) -> None:
    """Saved from one store, loaded into an empty one, made a shed of, and a command run in it."""
    save_to_file(small_store, ["busybox"], tmp_path / "busybox.tar")
    user = Machine(tmp_path, way=way)
    try:
        assert user.shed("image", "load", "-i", str(tmp_path / "busybox.tar")).startswith("loaded busybox (sha256:")
        assert " PASS " in user.shed("image", "verify", "busybox", "--deep")
        user.shed("create", "box", "--image", "busybox", "--trust-kernel")
        assert user.shed("exec", "box", "--", "cat", "/etc/passwd") == "root:x:0:0:root:/root:/bin/sh\n"
    finally:
        user.end()
