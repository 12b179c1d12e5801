"""`shed image push` and `pull` as their user meets them: by a server or without, for people and for machines."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from shed.images.mint import mint_archive
from shed.oci.store import LayoutStore
from support.images.minted import LAYER, small_kit
from support.layers.tars import Image, file, folder, tar
from support.registries.docker_registry import DockerRegistry, docker_registry, no_credentials
from support.registries.scripted_registry import Handler, scripted_registry
from support.vms.machine import Machine

BIG = tar(folder("usr"), *(file(f"usr/{number}", os.urandom(1_000_000)) for number in range(10)))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """A registry."""
    with docker_registry(tmp_path_factory.mktemp("registry") / "r") as registry:
        yield registry


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with the image ``app``."""
    root = tmp_path_factory.mktemp("machine")
    store = LayoutStore(root / "data/images")
    mint_archive(store, Image(LAYER, BIG).archive(root / "a.tar"), "app", kit=small_kit(store))
    with pytest.MonkeyPatch.context() as monkeypatch:
        no_credentials(monkeypatch, root)
        machine = Machine(root)
        yield machine
        machine.end()


@pytest.mark.parametrize("local", [True, False], ids=["local", "by-the-server"])
def test_push_and_pull(server: DockerRegistry, machine: Machine, *, local: bool) -> None:
    """The same words and the same answers, whoever does the work."""
    where = ["--local"] if local else []
    reference = f"{server.address}/cli/shed-fc-app{len(where)}:v1"
    digest = json.loads(machine.shed("image", "inspect", "app"))["digest"]
    pushed = machine.try_shed("image", "push", "app", reference, *where)
    assert pushed.stdout.decode().startswith(f"pushed {reference}: 8 blobs sent (")
    assert pushed.stdout.decode().endswith(f"), 0 were there, {digest[:19]}\n")
    assert pushed.stderr.decode().splitlines() == ["checking app", f"pushing to {reference}", f"naming it {reference}"]
    again = json.loads(machine.shed("image", "push", "app", reference, "--json", *where))
    assert (again["action"], again["digest"], again["uploaded"], again["exists"]) == ("push", digest, 0, 8)
    pulled = json.loads(machine.shed("image", "pull", reference, "--json", *where))
    assert (pulled["tag"], pulled["digest"], pulled["fetched"], pulled["exists"]) == (f"app{len(where)}", digest, 0, 4)
    assert machine.shed("image", "pull", reference, "-t", "mine", "--with-layers", *where).startswith(
        "pulled mine: 0 blobs fetched"
    )
    assert {"app", f"app{len(where)}", "mine"} <= set(machine.shed("image", "ls", "-q").split())


def test_a_server_that_is_stopped_in_the_middle(machine: Machine) -> None:
    """Its end does not wait for a registry that stalls; whoever asked for the pull is told."""
    reached, over = threading.Event(), threading.Event()

    def stall(handler: Handler) -> bool:
        reached.set()
        over.wait(250)
        return handler.end()

    machine.shed("server", "start")
    with scripted_registry() as registry, ThreadPoolExecutor(1) as pool:
        registry.once("GET", "manifests", stall, times=9)
        pull = pool.submit(machine.try_shed, "image", "pull", f"{registry.address}/me/app:v1")
        try:
            assert reached.wait(60)
            machine.shed("server", "stop")
            assert b"the server is stopping" in pull.result(timeout=60).stderr
        finally:
            over.set()


@pytest.mark.parametrize("local", [True, False], ids=["local", "by-the-server"])
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("push", "nothing", "{}/a/b:v1"), 1, "no image is called 'nothing'"),
        (("push", "app", "{}/a/B"), 2, "invalid image reference"),
        (("pull", "{}/a/nothing"), 1, "has no manifest a/nothing:latest"),
        (("pull", "{}/a/nothing", "-t", "../x"), 2, "invalid image name '../x'"),
        (("pull", "{}/a/nothing", "--platform", "x"), 2, "invalid platform 'x'"),
    ],
)
def test_what_fails(
    server: DockerRegistry, machine: Machine, words: tuple[str, ...], code: int, message: str, *, local: bool
) -> None:
    """One sentence and one hint, and the same for machines."""
    command = ["image", *(word.format(server.address) for word in words), *(["--local"] if local else [])]
    done = machine.try_shed(*command)
    assert (done.returncode, done.stdout) == (code, b"")
    error, hint = done.stderr.decode().splitlines()[-2:]
    assert error.startswith("error: ")
    assert message in error
    assert hint.startswith("hint: ")
