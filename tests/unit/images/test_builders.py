"""Builders: which one builds, what it is asked, and what is refused before it is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shed.errors import DataError, NotFoundError, UnavailableError, UsageError
from shed.images.builders import tools
from shed.images.builders.base import BuildRequest, Show, complaint, tool_environment
from shed.images.builders.build import DEFAULT_FILES, find_file
from shed.images.builders.policy import write_policy
from shed.images.builders.tools import BUILDERS, Docker, choose_builder
from shed.oci.descriptor import Platform
from shed.run import Argument

PLAIN = BuildRequest(context=Path("ctx"), file=Path("ctx/Dockerfile"), name="dev")
FULL = BuildRequest(
    context=Path("ctx"),
    file=Path("other"),
    name="dev",
    target="two",
    platform=Platform("linux", "arm64", "v8"),
    build_args=("A=b c", "TOKEN"),
    epoch="1700000000",
)
OUT, RECORD = Path("o.tar"), Path("o.id")
_FULL = "--file other --target two --platform linux/arm64/v8 --build-arg A=b_c --build-arg TOKEN ctx"
_NO_ATTESTATIONS = "--progress=plain --provenance=false --sbom=false"
COMMANDS: list[tuple[Callable[[BuildRequest], list[Argument]], str, str]] = [
    (
        lambda request: tools.storage_build_command("buildah", request, RECORD),
        "buildah build --layers --force-rm --iidfile o.id --tag localhost/shed-build:dev",
        " --timestamp 1700000000 --no-cache",
    ),
    (
        lambda request: tools.storage_build_command("podman", request, RECORD),
        "podman build --layers --force-rm --iidfile o.id --tag localhost/shed-build:dev",
        " --timestamp 1700000000 --no-cache",
    ),
    (
        lambda request: tools.docker_export_command(request, OUT),
        f'docker buildx build {_NO_ATTESTATIONS} --output type=oci,"dest=o.tar"',
        ",rewrite-timestamp=true",
    ),
    (
        lambda request: tools.docker_build_command(["docker", "buildx", "build", "--load"], request, RECORD),
        f"docker buildx build --load {_NO_ATTESTATIONS} --iidfile o.id --tag shed-build:dev",
        "",
    ),
    (
        lambda request: tools.docker_build_command(["docker", "build"], request, RECORD),
        "docker build --iidfile o.id --tag shed-build:dev",
        "",
    ),
]
"""What makes the command, how it starts, and what a date adds to that."""


class Tool:
    """A builder that works or says why not."""

    storage = "nowhere"

    def __init__(self, name: str, reason: str | None = None) -> None:
        self.name = name
        self.reason = reason

    def probe(self) -> str | None:
        return self.reason

    def build(self, request: BuildRequest, output: Path, show: Show | None) -> None:
        raise NotImplementedError

    def has(self, reference: str) -> bool:
        raise NotImplementedError

    def export(self, reference: str, output: Path, show: Show | None) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("make", "start", "dated"), COMMANDS, ids=["buildah", "podman", "buildx", "buildx into the engine", "classic"]
)
def test_the_command_that_builds(make: Callable[[BuildRequest], list[Argument]], start: str, dated: str) -> None:
    """Every option of a request becomes options of the builder; the context is last."""
    assert [str(word) for word in make(PLAIN)] == f"{start} --file ctx/Dockerfile ctx".split()
    assert [str(word).replace(" ", "_") for word in make(FULL)] == f"{start}{dated} {_FULL}".split()


def test_a_build_argument_without_a_value_travels_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its value is no process argument; what nobody asked for does not travel."""
    monkeypatch.setenv("TOKEN", "secret")
    monkeypatch.setenv("OTHER", "secret")
    assert "secret" not in str(FULL.options())
    env = FULL.environment(tmp_path)
    assert (env["TOKEN"], env["TMPDIR"], "OTHER" in env) == ("secret", str(tmp_path), False)
    assert "TOKEN" not in PLAIN.environment(tmp_path)


def test_builders_learn_where_their_storage_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that only concern builders go to builders."""
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", "/x")
    assert tool_environment()["CONTAINERS_STORAGE_CONF"] == "/x"


def test_the_first_that_works_builds() -> None:
    """In their order; one that is named is used or told about, whatever else works."""
    tools = [Tool("docker", "no engine"), Tool("podman"), Tool("buildah")]
    assert choose_builder(builders=tools).name == "podman"
    assert choose_builder("buildah", builders=tools).name == "buildah"
    with pytest.raises(UnavailableError, match="cannot build with docker: no engine") as caught:
        choose_builder("docker", builders=tools)
    assert caught.value.hint == "install docker and start its engine"
    assert [builder.name for builder in BUILDERS] == ["docker", "podman", "buildah"]


def test_when_none_works_every_reason_is_told() -> None:
    """One error, with what to do about each."""
    with pytest.raises(UnavailableError, match="docker: no engine; podman: it is not installed") as caught:
        choose_builder(builders=[Tool("docker", "no engine"), Tool("podman", "it is not installed")])
    assert caught.value.code == "NO_BUILDER"
    assert all(
        word in (caught.value.hint or "")
        for word in ("start its engine", "install the package podman", "--from-oci-archive")
    )


def test_an_unknown_builder() -> None:
    """The ones there are, are named."""
    with pytest.raises(UsageError, match="there is no builder 'kaniko'") as caught:
        choose_builder("kaniko")
    assert "docker, podman, buildah" in (caught.value.hint or "")


def test_a_docker_client_without_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client answers, and builds nothing: it is passed over, with what it says."""
    client = tmp_path / "docker"
    client.write_text('#!/bin/sh\necho "Cannot connect to the Docker daemon at $DOCKER_HOST." >&2; exit 1\n')
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    assert Docker().probe() == "Cannot connect to the Docker daemon at unix:///nowhere."
    assert choose_builder(builders=[Docker(), Tool("podman")]).name == "podman"


def test_why_a_tool_does_not_work() -> None:
    """The last line of what it says, or that it is not there."""
    assert complaint("true") is None
    assert complaint("no-such-tool-here") == "it is not installed"
    assert complaint("sh", "-c", "echo one; echo two >&2; echo three >&2; exit 3") == "three"
    assert complaint("sh", "-c", "exit 3") == "sh failed with exit code 3"


def test_the_file_that_is_built_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of the known names in the context; one that is named is where it says, not in the context."""
    for name in reversed(DEFAULT_FILES):
        (tmp_path / name).touch()
        assert find_file(tmp_path) == tmp_path / name
    assert find_file(tmp_path, str(tmp_path / "Dockerfile")) == tmp_path / "Dockerfile"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(NotFoundError, match="Dockerfile is not a file") as caught:
        find_file(tmp_path, "Dockerfile")
    assert f"--file {tmp_path}/Dockerfile" in (caught.value.hint or "")
    with pytest.raises(NotFoundError, match=r"elsewhere has none of Dockerfile\.shed, Dockerfile, Containerfile"):
        find_file(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="Dockerfile is not a folder"):
        find_file(tmp_path / "Dockerfile")


def test_the_policy_for_what_is_not_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user's policy says of registries counts; nothing but our layouts and the storage is allowed besides."""
    monkeypatch.setenv("HOME", str(tmp_path))
    own = tmp_path / ".config/containers/policy.json"
    own.parent.mkdir(parents=True)
    reject, accept = [{"type": "reject"}], [{"type": "insecureAcceptAnything"}]
    transports = {"docker": {"r.example": reject}, "dir": {"": accept}}
    own.write_text(json.dumps({"default": accept, "transports": transports}))
    found = json.loads(write_policy(tmp_path, tmp_path, "/storage").read_text())
    assert found == {
        "default": reject,
        "transports": {
            "docker": {"": accept, "r.example": reject},
            "containers-storage": {"[/storage]": accept},
            "oci": {str(tmp_path.resolve()): accept},
        },
    }
    assert "oci" not in json.loads(write_policy(tmp_path, None, "/storage").read_text())["transports"]
    own.write_text("[]")
    with pytest.raises(DataError, match=r"policy\.json"):
        write_policy(tmp_path, None, "/storage")
