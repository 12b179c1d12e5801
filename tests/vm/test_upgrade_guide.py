"""The upgrade guide, executed command for command on a store that v0.5.1 left, with a real registry and a real VM."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.images.push import push_image
from shed.oci import media
from shed.oci.descriptor import Descriptor
from shed.oci.store import LayoutStore
from support.layers.tars import Image, file, tar
from support.registries.docker_registry import DockerRegistry, docker_registry, no_credentials
from support.vms.machine import Machine
from support.vms.templates import WARM

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]
GUIDE = Path(__file__).parents[2] / "docs/upgrades/v0.5.1-to-v0.5.2.md"


def commands(kind: str) -> list[str]:
    """Return the lines of the guide's blocks of a kind, in order."""
    blocks = re.findall(rf"^```sh title=\"{kind}\"\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerRegistry]:
    no_credentials(monkeypatch, tmp_path)
    with docker_registry(tmp_path / "registry") as server:
        yield server


def left_by_v051(data: Path) -> str:
    """Make what v0.5.1 leaves: an image without the annotation, its tag, the file system it made of it, and a shed;
    return the digest.
    """
    store = LayoutStore(data / "images")
    image = Image(tar(file("etc/os-release", b"NAME=old\n")))
    image.manifest["annotations"] = {
        "io.shed.schema-version": "1",
        "io.shed.variant": "base",
        "io.shed.source-ref": "example.org/base:v0.5.1",
    }
    entry = image.seal()
    for blob in image.blobs.values():
        store.put_bytes(blob)
    store.publish(Descriptor(media.MANIFEST, entry["digest"], entry["size"]), "base")
    cache = data / "images/cache/sha256"
    cache.mkdir(parents=True)
    (cache / f"{entry['digest'].removeprefix('sha256:')}.erofs").write_bytes(b"made by the host")
    instance = data / "instances/old"
    instance.mkdir(parents=True)
    about = {
        "schema_version": 3, "name": "old", "backend": "firecracker", "status": "stopped",
        "lower_digest": entry["digest"], "lower_image_tag": "base", "cpus": 2, "memory_mb": 4096,
    }  # fmt: skip
    (instance / "metadata.json").write_text(json.dumps(about))
    upper = data / "uppers/old"
    upper.mkdir(parents=True)
    (upper / "upper.ext4").write_bytes(bytes(4096))
    return str(entry["digest"])


def test_the_guide_works(way: str, registry: DockerRegistry, small_store: LayoutStore, tmp_path: Path) -> None:
    """Before it the old image is refused with the documented text; after it a shed runs, and nothing of v0.5.1 is
    left.
    """
    push_image(small_store, "busybox", f"{registry.address}/published/shed-qemu-base:v0.5.2")
    machine = Machine(tmp_path, way=way)
    digest = left_by_v051(machine.data)
    aliases = {"base": f"{registry.address}/published/shed-qemu-base:${{shed.version}}"}
    (tmp_path / ".config/shed/server.yaml").write_text(
        json.dumps({"default_image": "base", "image_aliases": aliases, "qemu": {"warm_start": way == WARM}})
    )
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, module in (("shed", "shed.cli.main"), ("shed-server", "shed.server.main")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        (programs / name).chmod(0o755)
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "SHED_DATA_DIR": str(machine.data),
        "SHED_RUNTIME_DIR": str(tmp_path / "run"),
    }

    def run(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", line],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            stdin=subprocess.DEVNULL,
            cwd=tmp_path,
        )

    try:
        short = digest[: len("sha256:") + 12]
        refused = run("shed create early")
        assert refused.returncode != 0
        assert (
            f"image manifest {short} lacks io.shed.rootfs.erofs.digest annotation (built with pre-v0.5.2 tooling). "
            f"Re-pull against current images: shed image rm {short} && shed-server pull-images."
        ) in refused.stderr
        outputs = {}
        for line in commands("upgrade"):
            done = run(line)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}{machine.consoles()}"
            outputs[line] = done
        assert "old" in outputs["shed list"].stderr
        assert not (machine.data / "instances/old").exists()
        assert not (machine.data / "images/cache").exists()
        assert not LayoutStore(machine.data / "images").has(digest)
        assert [image["name"] for image in json.loads(run("shed image ls --json").stdout)] == ["base"]
        for line in commands("rollback"):
            assert run(line).returncode == 0, line
        assert run("shed image ls -q").stdout == ""
    finally:
        machine.end()
