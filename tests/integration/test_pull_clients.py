"""A pull lasts as long as somebody waits for it: what the server does is seen at the registry, in the store and in what
commands say.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.images.annotations import BootAnnotations
from shed.images.mint import mint_archive
from shed.images.push import push_image
from shed.oci.digest import Digest
from shed.oci.partial import partials
from shed.oci.store import LayoutStore
from support.images.minted import LAYER, digest_of, small_kit
from support.layers.tars import Image, file, folder, tar
from support.registries.docker_registry import no_credentials
from support.registries.hostile_registry import Tap
from support.registries.scripted_registry import Registry, scripted_registry
from support.vms.machine import Machine
from support.waiting import wait_until

FIRST = 100_000


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A machine with nothing on it, and a server."""
    no_credentials(monkeypatch, tmp_path)
    machine = Machine(tmp_path)
    machine.shed("server", "start")
    yield machine
    machine.end()


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A registry."""
    with scripted_registry() as registry:
        yield registry


@pytest.fixture
def root(registry: Registry, tmp_path: Path) -> Digest:
    """The root of an image that the registry has."""
    store = LayoutStore(tmp_path / "made")
    archive = Image(LAYER, tar(folder("usr"), file("usr/big", os.urandom(1_000_000)))).archive(tmp_path / "a.tar")
    mint_archive(store, archive, "app", kit=small_kit(store))
    push_image(store, "app", f"{registry.address}/me/app:v1")
    root = BootAnnotations.parse(store.read_manifest(digest_of(store, "app")).annotations).root
    assert root
    return root


def tap(registry: Registry, root: Digest) -> Tap:
    """Have the registry stand still in the middle of the root, until it is told to go on."""
    tap = Tap(registry.blobs[root], FIRST)
    registry.once("GET", root, tap)
    return tap


def held(machine: Machine) -> list[Path]:
    """Return the leases of work under way in the machine's store."""
    return list((machine.data / "images/leases").iterdir())


def test_a_client_that_is_killed_ends_its_pull(machine: Machine, registry: Registry, root: Digest) -> None:
    """The server hangs up on the registry; what came is kept, counted, no larger than it was sent, and the next pull
    goes on there.
    """
    stuck = tap(registry, root)
    client = machine.start("image", "pull", f"{registry.address}/me/app:v1")
    assert stuck.begun.wait(60)
    wait_until(lambda: partials(machine.data / "images/blobs/sha256"), what="a part of the root")
    client.kill()
    client.communicate()
    assert stuck.left.wait(60)
    wait_until(lambda: not held(machine), what="the pull has ended")
    kept = partials(machine.data / "images/blobs/sha256")
    assert all(status.st_size <= FIRST for status in kept.values())
    counted = json.loads(machine.shed("system", "df", "--json"))["kinds"]["downloads"]
    assert (counted["count"], counted["size_bytes"]) == (len(kept), sum(status.st_size for status in kept.values()))
    assert json.loads(machine.shed("image", "ls", "--json")) == []
    again = tap(registry, root)
    again.open.set()
    machine.shed("image", "pull", f"{registry.address}/me/app:v1")
    assert again.start == (kept[root].st_size if root in kept else 0)


def test_the_last_client_to_leave_ends_it(machine: Machine, registry: Registry, root: Digest) -> None:
    """Two wait for one download; when the first is killed it goes on for the second."""
    stuck = tap(registry, root)
    first = machine.start("image", "pull", f"{registry.address}/me/app:v1")
    assert stuck.begun.wait(60)
    second = machine.start("image", "pull", f"{registry.address}/me/app:v1")
    assert second.stderr
    assert second.stderr.readline().startswith(b"looking up")
    again = tap(registry, root)
    assert len(registry.requests("GET", root)) == 1
    first.kill()
    first.communicate()
    assert stuck.left.wait(60)
    assert again.begun.wait(60)
    assert not again.left.is_set()
    second.kill()
    second.communicate()
    assert again.left.wait(60)
    wait_until(lambda: not held(machine), what="the pull has ended")


def test_a_pull_that_is_detached(machine: Machine, registry: Registry, root: Digest) -> None:
    """The command returns when the download has begun, and the server goes on to its end."""
    stuck = tap(registry, root)
    told = machine.shed("image", "pull", f"{registry.address}/me/app:v1", "--detach")
    assert told == f"the server is pulling {registry.address}/me/app:v1; see: shed image ls\n"
    assert stuck.begun.wait(60)
    assert not stuck.left.is_set()
    stuck.open.set()
    wait_until(lambda: json.loads(machine.shed("image", "ls", "--json")), what="the image is here")


def test_a_detached_pull_that_fails_at_once(machine: Machine, registry: Registry) -> None:
    """What is known before the download begins is an error of the command; this process cannot detach from itself."""
    done = machine.try_shed("image", "pull", f"{registry.address}/me/none:v1", "--detach")
    assert done.returncode == 1
    assert b"has no manifest" in done.stderr
    done = machine.try_shed("image", "pull", f"{registry.address}/me/none:v1", "--detach", "--local")
    assert done.returncode == 2
    assert b"do not go together" in done.stderr


def test_the_pull_of_a_create_ends_with_its_client(machine: Machine, registry: Registry, root: Digest) -> None:
    """Nothing of the shed is there; a create that has its image goes on, as before."""
    stuck = tap(registry, root)
    client = machine.start("create", "dev", "--image", f"{registry.address}/me/app:v1")
    assert stuck.begun.wait(60)
    client.kill()
    client.communicate()
    assert stuck.left.wait(60)
    wait_until(lambda: not held(machine), what="the pull has ended")
    assert json.loads(machine.shed("list", "--json")) == []


def test_old_parts_go_when_the_server_starts(machine: Machine) -> None:
    """A day after they were last written to; younger ones stay, and are counted."""
    blobs = machine.data / "images/blobs/sha256"
    blobs.mkdir(parents=True)
    old, young = (blobs / f".partial-{digit * 64}" for digit in "ab")
    old.write_bytes(b"old")
    young.write_bytes(b"young")
    os.utime(old, (1, 1))
    machine.shed("server", "stop")
    machine.shed("server", "start")
    wait_until(lambda: not old.exists(), what="the old part is gone")
    assert json.loads(machine.shed("system", "df", "--json"))["kinds"]["downloads"]["count"] == 1
    assert young.exists()
