"""Images that the configuration names: pulled when a shed needs them, and before, by `shed-server pull-images`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from shed.config.server import Settings
from shed.errors import NotFoundError, ShedError
from shed.images import references
from shed.images.pull_policy import find_or_pull
from shed.images.push import push_image
from shed.oci.digest import Digest
from shed.oci.store import LayoutStore
from shed.progress import BytesEvent, Event, PhaseEvent, Progress
from support.images.minted import mint_small
from support.layers.tars import file, tar
from support.registries.docker_registry import DockerRegistry, docker_registry, no_credentials


@pytest.fixture(autouse=True)
def _no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_credentials(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """A registry with two versions of one image."""
    folder = tmp_path_factory.mktemp("published")
    with docker_registry(folder / "r") as registry:
        for version in ("v1", "v2"):
            publish(registry, folder, version, version)
        yield registry


def publish(registry: DockerRegistry, folder: Path, content: str, version: str) -> Digest:
    """Push an image with a file that says `content`."""
    store = LayoutStore(folder / f"made-{content}")
    digest = mint_small(store, folder, layer=tar(file("version", content.encode()))).manifest_digest
    push_image(store, "base", f"{registry.address}/pub/shed-qemu-base:{version}")
    return digest


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    """An empty store."""
    return LayoutStore(tmp_path / "images")


def settings(server: DockerRegistry, version: str = "v1", policy: str = "missing") -> Settings:
    """Return settings in which ``base`` stands for a version of the published image."""
    return Settings(image_aliases={"base": reference(server, version)}, pull_policy=policy)


def reference(server: DockerRegistry, version: str = "v1") -> str:
    """Return what a version of the published image is pulled by."""
    return f"{server.address}/pub/shed-qemu-base:{version}"


def phases(store: LayoutStore, name: str, how: Settings) -> tuple[Digest, list[str]]:
    """Have an image here; return its digest, and the phases of a pull, none when there was no need."""
    events: list[str] = []
    digest = find_or_pull(
        store,
        name,
        how,
        progress=Progress(lambda event: events.append(event.name) if isinstance(event, PhaseEvent) else None),
    )
    return digest, events


def test_what_is_missing_is_pulled_once(server: DockerRegistry, store: LayoutStore) -> None:
    """An alias is pulled the first time, gets its name, and is then found without asking the registry, also by its
    reference.
    """
    digest, events = phases(store, "base", settings(server))
    assert events == ["manifest", "blobs", "commit"]
    assert phases(store, "base", settings(server)) == (digest, [])
    assert phases(store, reference(server), settings(server)) == (digest, [])
    tag = store.tag("base")
    assert tag is not None
    assert tag.digest == digest


def test_another_version_in_the_configuration_is_noticed(server: DockerRegistry, store: LayoutStore) -> None:
    """When the alias stands for a newer version, that is pulled, and the name moves with it."""
    old, _ = phases(store, "base", settings(server, "v1"))
    new, events = phases(store, "base", settings(server, "v2"))
    assert events[-1:] == ["commit"]
    assert new != old
    assert store.tag("base") is not None
    assert phases(store, "base", settings(server, "v2")) == (new, [])


def test_what_was_built_here_goes_first(server: DockerRegistry, store: LayoutStore, tmp_path: Path) -> None:
    """A local image keeps its name: it is neither pulled over nor renamed, and the published one is known by its
    reference.
    """
    mine = mint_small(store, tmp_path, layer=tar(file("mine"))).manifest_digest
    assert phases(store, "base", settings(server, policy="always")) == (mine, [])
    published, _ = phases(store, reference(server), settings(server))
    assert published != mine
    assert phases(store, "base", settings(server)) == (mine, [])


def test_policies(server: DockerRegistry, store: LayoutStore, tmp_path: Path) -> None:
    """`never` asks no registry and says so; `always` sees that a tag was moved."""
    moving = f"{server.address}/pub/shed-qemu-moving:latest"
    with pytest.raises(NotFoundError, match=f"image not present locally and pull_policy=never: {moving}"):
        phases(store, moving, settings(server, policy="never"))
    folder = tmp_path / "publisher"
    folder.mkdir()
    first, second = (LayoutStore(folder / number) for number in ("1", "2"))
    one = mint_small(first, folder, layer=tar(file("one"))).manifest_digest
    two = mint_small(second, folder, layer=tar(file("two"))).manifest_digest
    push_image(first, "base", moving)
    assert phases(store, moving, settings(server))[0] == one
    push_image(second, "base", moving)
    assert phases(store, moving, settings(server)) == (one, [])
    assert phases(store, moving, settings(server, policy="never")) == (one, [])
    assert phases(store, moving, settings(server, policy="always"))[0] == two


def test_many_who_wait_for_one_download(server: DockerRegistry, store: LayoutStore) -> None:
    """Six creates at once of an image that is not here cost one download."""
    fetched: list[int] = []

    def one(_: int) -> Digest:
        total = 0

        def sink(event: Event) -> None:
            nonlocal total
            if isinstance(event, BytesEvent):
                total = max(total, event.current)

        digest = find_or_pull(store, "base", settings(server), progress=Progress(sink))
        fetched.append(total)
        return digest

    with ThreadPoolExecutor(6) as pool:
        digests = set(pool.map(one, range(6)))
    assert len(digests) == 1
    assert sum(1 for total in fetched if total) == 1


def test_an_alias_that_cannot_be_pulled_says_what_to_do(server: DockerRegistry, store: LayoutStore) -> None:
    """The error names the image as it was asked for, the reference, and both ways on; nothing is left."""
    missing = replace(settings(server), image_aliases={"base": f"{server.address}/pub/nothing:v1"})
    with pytest.raises(
        ShedError,
        match=f"no image called 'base' here, and it could not be pulled: {server.address} has no manifest pub/nothing",
    ) as caught:
        phases(store, "base", missing)
    assert "shed image build -n base" in (caught.value.hint or "")
    assert store.tag_names() == []
    assert references.all_references(store) == []


def test_the_command(server: DockerRegistry, tmp_path: Path) -> None:
    """It pulls each reference once, by the name it has here; the second time there is nothing to do; an unknown variant
    names the known.
    """
    config = tmp_path / "server.yaml"
    names = {"base": reference(server), "also-base": reference(server), "next": reference(server, "v2")}
    config.write_text(json.dumps({"default_image": "base", "image_aliases": names, "qemu": {"warm_start": False}}))

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "shed.server.main", "pull-images", "--config", str(config), *words]
        environment = {**os.environ, "SHED_DATA_DIR": str(tmp_path / "data")}
        return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)

    unknown = run("--variant", "full")
    assert (unknown.returncode, "also-base, base, next" in unknown.stderr) == (2, True)
    one = run("--variant", "next")
    assert (one.returncode, one.stdout.count("pulled")) == (0, 1)
    rest = run("--json")
    assert rest.returncode == 0, rest.stderr
    assert [image["reference"] for image in json.loads(rest.stdout)] == [reference(server)]
    assert run().stdout == "All images already cached.\n"
    config.write_text(json.dumps({"image_aliases": {"gone": f"{server.address}/pub/gone:v9"}, "default_image": "gone"}))
    failed = run()
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    assert "pub/gone" in failed.stderr
