"""`shed image push` and `pull` as their user meets them: by a server or without, for people and for machines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.images.mint import mint_archive
from shed.oci.store import LayoutStore
from support.docker_registry import DockerRegistry, docker_registry, no_credentials
from support.machine import Machine
from support.minted import LAYER, small_kit
from support.tars import Image, file, folder, tar

BIG = tar(folder("usr"), *(file(f"usr/{number}", os.urandom(1_000_000)) for number in range(10)))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """A registry."""
    with docker_registry(tmp_path_factory.mktemp("registry") / "r") as registry:
        yield registry


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A machine with the image ``app``."""
    no_credentials(monkeypatch, tmp_path)
    store = LayoutStore(tmp_path / "data/images")
    mint_archive(store, Image(LAYER, BIG).archive(tmp_path / "a.tar"), "app", kit=small_kit(store))
    machine = Machine(tmp_path)
    yield machine
    machine.end()


@pytest.mark.parametrize("local", [True, False], ids=["local", "by-the-server"])
def test_push_and_pull(server: DockerRegistry, machine: Machine, *, local: bool) -> None:
    """The same words and the same answers, whoever does the work."""
    where = ["--local"] if local else []
    reference = f"{server.address}/cli/shed-fc-app{len(where)}:v1"
    digest = json.loads(machine.shed("image", "ls", "--json"))[0]["digest"]
    pushed = machine.try_shed("image", "push", "app", reference, *where)
    assert pushed.stdout.decode().startswith(f"pushed {reference}: 8 blobs sent (")
    assert pushed.stdout.decode().endswith(f"), 0 were there, {digest[:19]}\n")
    assert pushed.stderr.decode().splitlines() == ["checking app", f"pushing to {reference}", f"naming it {reference}"]
    again = json.loads(machine.shed("image", "push", "app", reference, "--json", *where))
    assert (again["action"], again["digest"], again["uploaded"], again["exists"]) == ("push", digest, 0, 8)
    pulled = json.loads(machine.shed("image", "pull", reference, "--json", *where))
    assert (pulled["tag"], pulled["digest"], pulled["fetched"], pulled["exists"]) == (f"app{len(where)}", digest, 0, 4)
    assert machine.shed("image", "pull", reference, "-t", "mine", "--with-layers", *where).startswith("pulled mine: 0 blobs fetched")
    assert machine.shed("image", "ls", "-q").split() == ["app", f"app{len(where)}", "mine"]


@pytest.mark.parametrize("local", [True, False], ids=["local", "by-the-server"])
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("push", "nothing", "{}/a/b:v1"), 1, "no image is called 'nothing'"),
        (("push", "app", "{}/a/B"), 2, "invalid image reference"),
        (("push", "app", "127.0.0.1:1/a"), 1, "cannot reach 127.0.0.1:1: connection refused"),
        (("pull", "{}/a/nothing"), 1, "has no manifest a/nothing:latest"),
        (("pull", "{}/a/nothing", "-t", "../x"), 2, "invalid image name '../x'"),
        (("pull", "{}/a/nothing", "--platform", "x"), 2, "invalid platform 'x'"),
    ],
)
def test_what_fails(server: DockerRegistry, machine: Machine, words: tuple[str, ...], code: int, message: str, *, local: bool) -> None:
    """One sentence and one hint, and the same for machines."""
    command = ["image", *(word.format(server.address) for word in words), *(["--local"] if local else [])]
    done = machine.try_shed(*command)
    assert (done.returncode, done.stdout) == (code, b"")
    error, hint = done.stderr.decode().splitlines()[-2:]
    assert error.startswith("error: ")
    assert message in error
    assert hint.startswith("hint: ")
