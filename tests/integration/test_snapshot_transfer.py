"""Snapshots to a real registry and back, by the command line; what is sent again, and what is not."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shed.config.paths import Paths
from shed.progress import Progress, Stop
from shed.sheds.snapshotstore import Snapshot, SnapshotStore
from support.registries.docker_registry import DockerRegistry, docker_registry, no_credentials
from support.vms.machine import Machine

GIB = 1 << 30
MIB = 1 << 20
RECORD = Snapshot("monday", "qemu", "dev", "base", "2026-11-30T09:00:00Z", f"sha256:{'a' * 64}", GIB)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """A registry."""
    with docker_registry(tmp_path_factory.mktemp("registry") / "r") as registry:
        yield registry


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A machine without images."""
    no_credentials(monkeypatch, tmp_path)
    machine = Machine(tmp_path / "machine")
    yield machine
    machine.end()


def snapshot(machine: Machine, name: str, pieces: dict[int, bytes]) -> Path:
    """Keep a snapshot whose disk has `pieces`; return the disk."""
    store = SnapshotStore(Paths(data=machine.data, run=machine.data.parent / "run"))
    upper = machine.data.parent / "upper"
    with upper.open("wb") as file:
        file.truncate(GIB)
        for offset, data in pieces.items():
            os.pwrite(file.fileno(), data, offset)
    store.save(replace(RECORD, name=name), upper, Progress(), Stop())
    return store.upper(name)


def same(one: Path, other: Path) -> bool:
    """Tell whether two disks have the same bytes."""
    return subprocess.run(["cmp", one, other], check=False).returncode == 0


def test_a_second_push_sends_what_has_changed(registry: DockerRegistry, machine: Machine) -> None:
    """Nothing is sent twice, not under another tag either; what is pulled is what was pushed."""
    pieces = {number * MIB: os.urandom(MIB) for number in range(8)}
    first = snapshot(machine, "monday", pieces)
    second = snapshot(machine, "tuesday", {**pieces, 3 * MIB: os.urandom(MIB)})
    reference = f"{registry.address}/me/dev:latest"

    def push(name: str, to: str) -> tuple[int, int]:
        pushed = json.loads(machine.shed("snapshot", "push", name, to, "--json"))
        return pushed["uploaded"], pushed["chunks"]

    assert push("monday", reference) == (9, 8)  # with the config
    assert push("monday", reference) == (0, 8)
    assert push("monday", f"{registry.address}/me/dev:monday") == (0, 8)
    assert push("tuesday", reference) == (2, 8)
    pulled = json.loads(machine.shed("snapshot", "pull", reference, "--json"))
    assert (pulled["snapshot"]["name"], pulled["fetched"]) == ("dev", 8)
    assert pulled["snapshot"]["lower_cached"] is False
    assert same(machine.data / "snapshots/dev/upper.ext4", second)
    told = machine.try_shed("snapshot", "pull", f"{registry.address}/me/dev:monday", "again")
    assert told.stdout.decode().startswith("pulled again: 8 chunks fetched (")
    assert f"the image is not here: base (sha256:{'a' * 64})" in told.stderr.decode()
    assert same(machine.data / "snapshots/again/upper.ext4", first)
    refused = machine.try_shed("snapshot", "pull", reference)
    assert (refused.returncode, b"SNAPSHOT_ALREADY_EXISTS" in refused.stderr) == (1, False)
    assert b"there is a snapshot 'dev' already" in refused.stderr


def test_a_pull_that_was_cut_goes_on(registry: DockerRegistry, machine: Machine) -> None:
    """What a pull had brought when the registry failed is not fetched again."""
    source = snapshot(machine, "monday", {number * MIB: os.urandom(MIB) for number in range(12)})
    reference = f"{registry.address}/cut/dev:v1"
    machine.shed("snapshot", "push", "monday", reference)
    manifest = json.loads(registry.get("cut/dev/manifests/v1", accept="application/vnd.oci.image.manifest.v1+json")[1])
    blob = manifest["layers"][9]["digest"].removeprefix("sha256:")
    stored = registry.storage / f"docker/registry/v2/blobs/sha256/{blob[:2]}/{blob}/data"
    data = stored.read_bytes()
    stored.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    failed = machine.try_shed("snapshot", "pull", reference, "x", "--json")
    assert failed.returncode == 1
    assert json.loads(failed.stderr or failed.stdout)["error"]["code"] == "DIGEST_MISMATCH"
    assert json.loads(machine.shed("snapshot", "ls", "--json"))[0]["name"] == "monday"
    stored.write_bytes(data)
    pulled = json.loads(machine.shed("snapshot", "pull", reference, "x", "--json"))
    assert 1 <= pulled["fetched"] < 12
    assert same(machine.data / "snapshots/x/upper.ext4", source)
    assert not list((machine.data / "snapshots").glob(".*"))


def test_other_tools_carry_it(registry: DockerRegistry, machine: Machine, tmp_path: Path) -> None:
    """`skopeo copy` takes a snapshot out of a registry, and a saved one into it; a pipe works too."""
    source = snapshot(machine, "monday", {0: b"x" * MIB, GIB - 512: b"end"})
    file, copied = tmp_path / "m.tar", tmp_path / "copied"
    machine.shed("snapshot", "save", "monday", "-o", str(file))
    reference = f"docker://{registry.address}/carried/dev:v1"
    plain = ["--src-tls-verify=false", "--dest-tls-verify=false"]
    subprocess.run(["skopeo", "copy", "--quiet", *plain, f"oci-archive:{file}", reference], check=True)
    machine.shed("snapshot", "pull", reference.removeprefix("docker://"), "pulled")
    subprocess.run(["skopeo", "copy", "--quiet", *plain, reference, f"oci:{copied}:dev"], check=True)
    machine.shed("snapshot", "load", "loaded", "-i", str(copied))
    saved = machine.try_shed("snapshot", "save", "monday", "-o", "-")
    assert saved.stdout == file.read_bytes()
    machine.shed("snapshot", "load", "piped", stdin=saved.stdout)
    for name in ("pulled", "loaded", "piped"):
        assert same(machine.data / f"snapshots/{name}/upper.ext4", source)


def test_what_is_no_snapshot_is_refused(registry: DockerRegistry, machine: Machine, tmp_path: Path) -> None:
    """An image, a name that means nothing, and a digest as a destination get one sentence and the next step."""
    snapshot(machine, "monday", {})
    layout = tmp_path / "image"
    subprocess.run(["umoci", "init", "--layout", layout], check=True)
    subprocess.run(["umoci", "new", "--image", f"{layout}:v1"], check=True)
    reference = f"{registry.address}/an/image:v1"
    subprocess.run(
        ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{layout}:v1", f"docker://{reference}"],
        check=True,
    )
    for words, sentence in {
        ("pull", reference): "is not of a snapshot, but of an image",
        ("pull", f"{registry.address}/not/there:v1"): "not/there",
        ("push", "monday", f"{registry.address}/me/x@sha256:{'a' * 64}"): "a digest is not a name",
        ("push", "nothing", reference): "there is no snapshot 'nothing'",
        ("load", "x", "-i", str(layout)): "is not of a snapshot, but of an image",
        ("save", "nothing", "-o", str(tmp_path / "f")): "there is no snapshot 'nothing'",
    }.items():
        done = machine.try_shed("snapshot", *words)
        assert done.returncode in {1, 2, 3, 4, 5, 6}, words
        assert sentence in done.stderr.decode(), done.stderr.decode()
        assert "Traceback" not in done.stderr.decode()
    assert not (tmp_path / "f").exists()
