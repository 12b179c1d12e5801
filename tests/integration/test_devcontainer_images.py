"""Images of projects: `shed image build --devcontainer` with a real registry of features and real builders."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shed.devjson import METADATA
from shed.erofs.reader import Image as ErofsImage
from shed.images.bootkit.build import save_kit
from shed.images.builders.base import Builder, BuildRequest
from shed.images.builders.tools import Buildah, Podman
from shed.images.devcontainer.project import read_project
from shed.images.devcontainer.resolve import Resolver
from shed.images.listing import inspect_image
from shed.oci.staging import staging_folder
from shed.oci.store import LayoutStore
from shed.progress import Progress
from shed.run import ToolError
from support.erofs.records import record_image
from support.images.minted import small_kit
from support.registries.docker_registry import docker_registry, no_credentials
from support.registries.features import feature_archive, feature_files, push_feature
from support.tools.containers import BUSYBOX, Containers, make_containers

pytestmark = [pytest.mark.root, pytest.mark.slow]
BASE = f"FROM {BUSYBOX}\nRUN busybox --install -s /bin && echo 'ada:x:1000:1000::/home/ada:/bin/sh' >>/etc/passwd\n"
SAY = "echo {name} $GREETING by $(id -un) for $_REMOTE_USER at $_REMOTE_USER_HOME in $PLACE >>/said"
GREETING = {"greeting": {"type": "string", "default": "hello"}}


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """A storage of buildah and podman."""
    folder = tmp_path_factory.mktemp("containers")
    tools = folder / "bin"
    tools.mkdir()
    for name in ("buildah", "podman"):
        found = shutil.which(name)
        assert found, f"scripts/setup --tests installs {name}"
        (tools / name).symlink_to(found)
    yield make_containers(folder / "one", f"{tools}:/usr/sbin:/usr/bin:/sbin:/bin")
    for mounted in folder.glob("*/storage/overlay"):
        subprocess.run(["umount", "--lazy", mounted], capture_output=True, check=False)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def place(containers: Containers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A namespace of a registry with the image base, and the features first, second, which depends on it, and third,
    which comes after second.
    """
    with docker_registry(tmp_path_factory.mktemp("registry") / "r") as registry, pytest.MonkeyPatch.context() as patch:
        no_credentials(patch, tmp_path_factory.mktemp("nobody"))
        place = f"{registry.address}/team"
        folder = tmp_path_factory.mktemp("base")
        (folder / "Dockerfile").write_text(BASE)
        containers.run("buildah", "build", "-q", "-t", f"{place}/base:1", folder)
        containers.run("buildah", "push", "-q", "--tls-verify=false", f"{place}/base:1")
        insecure = folder / "registries.conf"
        insecure.write_text(f'[[registry]]\nlocation = "{registry.address}"\ninsecure = true\n')
        containers.env["CONTAINERS_REGISTRIES_CONF"] = str(insecure)
        features = {
            "first": feature_files(
                "first", SAY.format(name="first"), containerEnv={"PLACE": "/opt/first:${PATH}"}, options=GREETING
            ),
            "second": feature_files(
                "second",
                SAY.format(name="second") + "\ncp tool.sh /bin/tool && chmod 755 /bin/tool",
                dependsOn={f"{place}/first:1": {"greeting": "hi"}},
                postCreateCommand="echo second was made",
                options=GREETING,
            )
            | {"tool.sh": b"#!/bin/sh\necho the tool\n"},
            "third": feature_files(
                "third", SAY.format(name="third"), installsAfter=[f"{place}/second"], options=GREETING
            ),
            "broken": feature_files("broken", "echo something is wrong >&2; exit 3"),
        }
        for name, files in features.items():
            push_feature(f"{place}/{name}", feature_archive(files), tags=("1", "latest"))
        yield place


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    """The store that `shed` uses, with a boot kit."""
    store = LayoutStore(tmp_path / "data/images")
    save_kit(store, small_kit(store))
    return store


def write(folder: Path, **says: Any) -> Path:
    """Write a ``devcontainer.json``, with a comment and a comma too many; return the project's folder."""
    (folder / ".devcontainer").mkdir(parents=True, exist_ok=True)
    (folder / ".devcontainer/devcontainer.json").write_text(f"// a comment\n{json.dumps(says)[:-1]},}}")
    return folder


def shed(store: LayoutStore, containers: Containers, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run ``shed image build -n dev``."""
    command = [sys.executable, "-m", "shed.cli.main", "--json", "image", "build", "-n", "dev", *words]
    env = containers.env | {"SHED_DATA_DIR": str(store.root.parent)}
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, env=env)


def build(store: LayoutStore, containers: Containers, *words: str | Path) -> dict[str, Any]:
    """Run ``shed image build -n dev`` and return what it tells machines."""
    done = shed(store, containers, *words)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def content(store: LayoutStore, found: dict[str, Any], path: str) -> str:
    """Return a file of the root file system that was built."""
    with ErofsImage.open(store.blob_path(found["root_digest"])) as image:
        return b"".join(image.chunks(image.lookup(os.fsencode(path.lstrip("/"))))).decode()


def test_features_on_an_image(store: LayoutStore, containers: Containers, place: str, tmp_path: Path) -> None:
    """In the order of what they need, with options and users; the same again is found, and another option is built;
    a lock file keeps what a name meant.
    """
    features = {f"{place}/third": {}, f"{place}/second:1": {"greeting": "it's $me"}}
    project = write(
        tmp_path / "project",
        image=f"{place}/base:1",
        features=features,
        remoteUser="ada",
        customizations={"vscode": {"extensions": ["a.b"]}},
    )
    words = ("--devcontainer", project, "--builder", "buildah")
    found = build(store, containers, *words, "--lock")
    assert (found["builder"], found["reused"]) == ("buildah", False)
    assert [name.rpartition("/")[2] for name in found["features"]] == ["first:1", "second:1", "third"]
    where = "by root for ada at /home/ada in /opt/first:/bin"
    assert content(store, found, "/said").splitlines() == [
        f"first hi {where}", f"second it's $me {where}", f"third hello {where}",
    ]  # fmt: skip
    metadata = json.loads(content(store, found, METADATA))["metadata"]
    assert metadata == [{"id": f"{place}/second:1", "postCreateCommand": "echo second was made"}]
    settings = inspect_image(store, "dev")["config"]
    assert settings["User"] == "ada"
    assert "PLACE=/opt/first:/bin" in settings["Env"]
    assert json.loads(settings["Labels"]["devcontainer.metadata"])[-1]["customizations"]["vscode"]
    with ErofsImage.open(store.blob_path(found["root_digest"])) as image:
        assert not [name for name in record_image(image) if "shed-feature" in name]
    assert not [*store.blobs.glob(".*.tmp")]
    again = build(store, containers, *words)
    assert (again["digest"], again["reused"], again["builder"]) == (found["digest"], True, "")

    newer = feature_files("third", "echo newer >>/said")
    push_feature(f"{place}/third", feature_archive(newer), tags=("latest",))
    assert build(store, containers, *words)["reused"]
    write(project, image=f"{place}/base:1", features={**features, f"{place}/third": {"greeting": "bye"}})
    other = build(store, containers, *words)
    assert not other["reused"]
    where = "by root for root at /root in /opt/first:/bin"
    assert content(store, other, "/said").splitlines()[-1] == f"third bye {where}"
    (project / ".devcontainer/devcontainer-lock.json").unlink()
    assert "newer" in content(store, build(store, containers, *words), "/said").splitlines()


def test_a_dockerfile_and_a_folder(store: LayoutStore, containers: Containers, place: str, tmp_path: Path) -> None:
    """With arguments, of which one is this machine's and allowed, and a feature of the project; a file of the context
    that changes has it built anew; a script that fails says what it said.
    """
    dockerfile = f"FROM {place}/base:1\nARG WHO=nobody\nARG HOME_OF=nobody\nCOPY a /a\nRUN echo $WHO $HOME_OF >/who\n"
    project = write(
        tmp_path / "project",
        build={
            "dockerfile": "Dockerfile",
            "context": "..",
            "args": {"WHO": "${localEnv:HOSTNAME_OF}", "HOME_OF": "${localEnv:HOME:default}"},
        },
        features={"./local": {}},
    )
    (project / ".devcontainer/Dockerfile").write_text(dockerfile)
    (project / "a").write_text("one\n")
    local = project / ".devcontainer/local"
    local.mkdir()
    for name, data in feature_files("local", "cat /a >>/said").items():
        (local / name).write_bytes(data)
    containers.env["HOSTNAME_OF"] = "this-machine"
    words = ("--devcontainer", project, "--builder", "podman", "--local-env", "HOSTNAME_OF")
    found = build(store, containers, *words)
    assert content(store, found, "/who") == "this-machine default\n"
    assert content(store, found, "/said") == "one\n"
    assert build(store, containers, *words)["builder"] == ""
    (project / "a").write_text("two\n")
    assert content(store, build(store, containers, *words), "/said") == "two\n"
    write(project, image=f"{place}/base:1", features={f"{place}/broken:1": {}})
    failed = shed(store, containers, *words)
    assert failed.returncode == 1
    assert "something is wrong" in json.loads(failed.stderr)["error"]["message"]
    assert not [*store.blobs.glob(".*.tmp")]


def test_one_feature_by_several_names(store: LayoutStore, place: str, tmp_path: Path) -> None:
    """It is brought once."""
    names = {f"{place}/first:1": {}, f"{place}/first": {"greeting": "x"}, f"{place}/first:latest": {}}
    project = read_project(write(tmp_path / "project", image="base", features=names))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    found = Resolver(project, scratch, store, {}, Progress()).run()
    assert len({feature.folder for feature in found}) == len([*scratch.iterdir()]) == 1


@pytest.mark.parametrize("builder", [Buildah(), Podman()], ids=["buildah", "podman"])
def test_what_a_foreign_dockerfile_does_not_get(
    builder: Builder, containers: Containers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of the host by the name of an image, whatever else reads the name; and a password of a proxy."""
    for key, value in containers.env.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://me:password@127.0.0.1:9")
    context = tmp_path / "context"
    context.mkdir()
    layout = tmp_path / "layout"
    containers.run("buildah", "push", "-q", BUSYBOX, f"oci:{layout}:x")
    file = context / "Dockerfile"

    def build_it(text: str, *, foreign: bool) -> None:
        file.write_text(text)
        with staging_folder(tmp_path) as folder:
            builder.build(BuildRequest(context, file, "dev", foreign=foreign), folder / "image.tar", None)

    copying = f"FROM {BUSYBOX}\nCOPY --from=oci:{layout}:x /bin/busybox /x-{builder.name}\n"
    asking = f"FROM {BUSYBOX}\nRUN : {builder.name}; ! busybox env | busybox grep password\n"
    build_it(f"FROM {BUSYBOX}\nRUN true\n", foreign=True)
    with pytest.raises(ToolError):
        build_it(copying, foreign=True)
    with pytest.raises(ToolError):
        build_it(asking, foreign=False)
    build_it(copying, foreign=False)
    build_it(asking, foreign=True)
