"""An image that went through a registry boots."""

from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.registries.docker_registry import docker_registry, no_credentials
from support.vms.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]


def test_push_wipe_pull_and_boot(
    way: str, tmp_path: Path, small_store: LayoutStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pushed from one machine, garbage-collected, pulled by another that has nothing but the registry, and run there.

    The other one does not know the kernel, so it has to be told to trust it.
    """
    no_credentials(monkeypatch, tmp_path)
    copy_store(small_store, tmp_path / "builder/data/images")
    builder, user = Machine(tmp_path / "builder"), Machine(tmp_path / "user", way=way)
    with docker_registry(tmp_path / "registry") as registry:
        reference = f"{registry.address}/me/shed-fc-busybox:v1"
        builder.shed("image", "push", "busybox", reference, "--local")
        registry.collect_garbage()
        try:
            user.shed("image", "pull", reference)
            refused = user.try_shed("create", "dev", "--image", "busybox")
            assert refused.returncode == 1
            assert b"image busybox brings the kernel sha256:" in refused.stderr
            assert b"shed image trust busybox" in refused.stderr
            assert user.shed("image", "trust", "busybox").startswith("trusted from now on: sha256:")
            user.shed("create", "dev", "--image", "busybox")
            assert user.shed("exec", "dev", "--", "cat", "/proc/sys/kernel/hostname") == "dev\n"
        finally:
            user.end()
