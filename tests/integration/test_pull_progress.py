"""What is told of each blob while an image is pulled: as events of the server, on a terminal, and where there is
none.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shed.client.address import parse
from shed.client.sync.requests import Exchange
from shed.errors import ShedError
from shed.images.annotations import BootAnnotations
from shed.images.mint import mint_archive
from shed.images.push import push_image
from shed.oci.digest import Digest, short
from shed.oci.store import LayoutStore
from support.images.minted import LAYER, digest_of, small_kit
from support.layers.tars import Image, file, folder, tar
from support.registries.counting_proxy import CountingProxy, counting_proxy
from support.registries.docker_registry import docker_registry, no_credentials
from support.tools.terminal import Terminal
from support.vms.machine import Machine

BIG = tar(folder("usr"), *(file(f"usr/{number}", os.urandom(1_000_000)) for number in range(10)))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LayoutStore:
    """A store with an image of two layers."""
    scratch = tmp_path_factory.mktemp("minted")
    store = LayoutStore(scratch / "images")
    mint_archive(store, Image(LAYER, BIG).archive(scratch / "a.tar"), "app", kit=small_kit(store))
    return store


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, store: LayoutStore) -> Iterator[CountingProxy]:
    """A slow way to a registry with that image."""
    with (
        docker_registry(tmp_path_factory.mktemp("registry") / "r") as registry,
        counting_proxy(registry.address, rate=8 << 20) as proxy,
    ):
        push_image(store, "app", f"{registry.address}/told/app:v1")
        yield proxy


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A machine with nothing on it."""
    no_credentials(monkeypatch, tmp_path)
    machine = Machine(tmp_path)
    yield machine
    machine.end()


def labels(store: LayoutStore) -> dict[Digest, str]:
    """Return what the blobs of the image are called."""
    manifest = store.read_manifest(digest_of(store, "app"))
    boot = BootAnnotations.parse(manifest.annotations)
    assert boot.kernel and boot.initrd and boot.runtime and boot.root  # noqa: PT018
    first, second = (layer.digest for layer in manifest.layers)
    return {
        boot.kernel: "kernel",
        boot.initrd: "initrd",
        boot.runtime: "runtime",
        boot.root: "rootfs",
        first: "layer 1",
        second: "layer 2",
    }


def told(machine: Machine, target: str, body: dict[str, Any]) -> tuple[list[str], dict[str, list[dict[str, Any]]]]:
    """Return the names of all events that answer a request, and those about blobs by digest."""
    names, blobs = [], dict[str, list[dict[str, Any]]]()
    address = parse(json.loads(machine.shed("server", "status", "--json"))["address"])
    try:
        with Exchange(address, "POST", target, body=body, accept="text/event-stream") as exchange:
            for event in exchange.events():
                names.append(event.name)
                if event.name == "blob":
                    blobs.setdefault(event.data["digest"], []).append(event.data)
    except ShedError:
        names.append("error")
    return names, blobs


def test_events_of_a_pull(machine: Machine, store: LayoutStore, proxy: CountingProxy) -> None:
    """Each blob from its first byte to its end, and what was here; nothing of it for who did not ask, and no other word
    than `blob`.
    """
    machine.shed("server", "start")
    body = {"docker_ref": f"{proxy.address}/told/app:v1"}
    names, blobs = told(machine, "/api/images/pull?progress=blob", body)
    assert names[-1] == "complete"
    known = labels(store)
    assert {digest: rows[0]["label"] for digest, rows in blobs.items()} == {
        key: text for key, text in known.items() if "layer" not in text
    }
    for digest, rows in blobs.items():
        size = store.size(digest)
        assert all(set(row) == {"digest", "label", "status", "current", "total"} for row in rows)
        assert {row["total"] for row in rows} == {size}
        assert [row["status"] for row in rows] == ["downloading"] * (len(rows) - 1) + ["done"]
        assert [row["current"] for row in rows] == sorted(row["current"] for row in rows)
        assert (rows[0]["current"], rows[-1]["current"]) == (0, size)
        assert len(rows) > 3 or size < 4 << 20
    names, blobs = told(machine, "/api/images/pull?progress=blob", {**body, "with_layers": True})
    statuses = {known[Digest(digest)]: rows[-1]["status"] for digest, rows in blobs.items()}
    assert statuses == {label: "done" if "layer" in label else "exists" for label in known.values()}
    shutil.rmtree(machine.data / "images/blobs")
    names, blobs = told(machine, "/api/images/pull", body)
    assert (set(names), blobs) == ({"progress", "bytes", "complete"}, {})
    assert told(machine, "/api/images/pull?progress=bolb", body) == (["error"], {})


def test_events_of_a_create(machine: Machine, store: LayoutStore, proxy: CountingProxy) -> None:
    """The pull that it implies is told in the same way; that this image boots nothing is seen later."""
    machine.shed("server", "start")
    names, blobs = told(
        machine, "/api/sheds?progress=blob", {"name": "dev", "image": f"{proxy.address}/told/app:v1", "timeout": 5}
    )
    assert {rows[-1]["status"] for rows in blobs.values()} == {"done"}
    assert {labels(store)[Digest(digest)] for digest in blobs} == {"kernel", "initrd", "runtime", "rootfs"}
    assert names[-1] == "error"


@pytest.mark.parametrize(
    "words", [("image", "pull", "{}", "--with-layers"), ("create", "dev", "--image", "{}")], ids=["pull", "create"]
)
def test_bars_on_a_terminal(machine: Machine, store: LayoutStore, proxy: CountingProxy, words: tuple[str, ...]) -> None:
    """One for each blob that is on its way, below the line about all of it."""
    root = next(digest for digest, label in labels(store).items() if label == "rootfs")
    terminal = Terminal()
    machine.shed("server", "start")
    terminal.run(*(word.format(f"{proxy.address}/told/app:v1") for word in words), env=machine.environment)
    name = f"  rootfs {root.removeprefix('sha256:')[:12]}"
    drawn = terminal.read_until(name.encode()) + terminal.read_until(b"A\x1b[J")
    terminal.close()
    assert re.search(rf" pulling [^\n]*\r\n(  [^\n]*\r\n)*{name} +\[[= ]{{24}}\]  [^\n]* of ", drawn.decode())


def test_plain_lines_and_none(machine: Machine, store: LayoutStore, proxy: CountingProxy) -> None:
    """Where there is no terminal each blob is one line, and for machines there is nothing."""
    reference = f"{proxy.address}/told/app:v1"
    told = machine.try_shed("image", "pull", reference, "--local").stderr.decode().splitlines()
    assert (told[0], told[1], told[-1]) == (f"looking up {reference}", f"pulling {reference}", "storing app")
    ours = {f"{label} {short(digest)[7:]}:" for digest, label in labels(store).items() if "layer" not in label}
    assert {line.rsplit(" ", 2)[0] for line in told[2:-1] if not line.startswith("image:")} == ours
    again = machine.try_shed("image", "pull", reference, "--local").stderr.decode()
    assert again.count(", was here\n") == 4
    assert machine.try_shed("image", "pull", reference, "--local", "--json").stderr == b""
