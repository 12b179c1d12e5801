"""What a ``devcontainer.json`` asks of an image and of the machine, and what it may not ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shed import devjson
from shed.errors import DataError, NotFoundError, UsageError
from shed.images.devcontainer.project import DockerBuild, Requirements, check_host, read_project
from shed.sizes import GIB


def write(folder: Path, **says: Any) -> Path:
    """Write a project's file and a Dockerfile beside it; return the project."""
    (folder / ".devcontainer").mkdir(parents=True, exist_ok=True)
    (folder / ".devcontainer/Dockerfile").write_text("FROM scratch\n")
    (folder / ".devcontainer/devcontainer.json").write_text(json.dumps(says))
    return folder


def test_an_image_with_features_and_requirements(tmp_path: Path) -> None:
    """All that decides the image and the shed is taken; what cannot be done is told."""
    folder = write(
        tmp_path / "p",
        image="docker.io/library/debian:13",
        features={"ghcr.io/a/b/node:1": "22", "./mine": {"on": True, "n": 3}},
        overrideFeatureInstallOrder=["ghcr.io/a/b/node"],
        containerUser="root",
        remoteUser="ada",
        hostRequirements={"cpus": 2, "memory": "4gb", "storage": "10GB", "gpu": "optional", "speed": 1},
        forwardPorts=[3000, "db:5432", 3000, 70000, True],
    )
    found = read_project(folder)
    assert found.base == "docker.io/library/debian:13"
    assert found.features == {"ghcr.io/a/b/node:1": {"version": "22"}, "./mine": {"on": "true", "n": "3"}}
    assert (found.order, found.container_user, found.remote_user) == (("ghcr.io/a/b/node",), "root", "ada")
    assert found.requirements == Requirements(2, 4 * GIB, 10 * GIB)
    assert found.ports == (3000,)
    assert [note.partition(" ")[0] for note in found.notes] == ["hostRequirements:", *["forwardPorts:"] * 3]


def test_a_dockerfile_and_variables(tmp_path: Path) -> None:
    """Paths are seen from the file; only variables that are allowed are read, and the others are named."""
    folder = write(
        tmp_path / "p",
        build={
            "dockerfile": "Dockerfile",
            "context": "..",
            "target": "dev",
            "args": {
                "A": "${localEnv:ALLOWED}-${localWorkspaceFolder}",
                "B": "${localEnv:SECRET:none}",
                "C": "${localEnv:SECRET}",
            },
            "options": ["--volume=/:/host"],
        },
        containerEnv={"X": "${localEnv:ALLOWED}", "Y": "${localEnv:SECRET}", "Z": "plain"},
    )
    found = read_project(folder, {"ALLOWED": "yes"})
    args = {"A": "yes-/workspace", "B": "none"}
    assert found.base == DockerBuild(folder / ".devcontainer/Dockerfile", folder, args, "dev")
    assert found.local_env == {"X": "yes"}
    assert [note.rpartition(": ")[0] or note for note in found.notes] == [
        "it may not read your variable SECRET",
        "build.options",
        "build.args: C names what is not known",
    ]


@pytest.mark.parametrize(
    ("says", "wrong"),
    [
        ({}, "names no image"),
        ({"image": "--all"}, "not the name of an image"),
        ({"image": "./x"}, "not the name of an image"),
        ({"image": 3}, "names no image"),
        ({"dockerComposeFile": "compose.yml"}, "docker compose"),
        ({"build": {"dockerfile": "Dockerfile", "context": "../.."}}, "leads out of the project's folder"),
        ({"build": {"dockerfile": "/etc/passwd"}}, "leads out of the project's folder"),
        ({"build": {"dockerfile": "link"}}, "leads out of the project's folder"),
        ({"build": {"dockerfile": "absent"}}, "is not a file"),
        ({"build": {"dockerfile": "Dockerfile", "context": "Dockerfile"}}, "is not a folder"),
        ({"build": {"dockerfile": "Dockerfile", "args": {"A": 1}}}, "does not hold texts"),
        ({"build": {"dockerfile": "Dockerfile", "args": {"A=B": "c"}}}, "no argument can have"),
        ({"build": {"dockerfile": "Dockerfile", "target": "--x"}}, "name of a stage"),
        ({"image": "a", "features": [1]}, "features is not an object"),
        ({"image": "a", "features": {"x": 1.5}}, "does not hold options"),
        ({"image": "a", "features": {"x": {"y": []}}}, "is not a text"),
        ({"image": "a", "overrideFeatureInstallOrder": "x"}, "not a list"),
        ({"image": "a", "remoteUser": "-x"}, "not the name of a user"),
        ({"image": "a", "remoteUser": "a\nRUN x"}, "not the name of a user"),
        ({"image": "a", "hostRequirements": {"cpus": 0}}, "above 0"),
        ({"image": "a", "hostRequirements": {"memory": "much"}}, "not a size"),
        ({"image": "a", "hostRequirements": {"gpu": True}}, "a shed has none"),
        ({"image": "a", "forwardPorts": 3000}, "not a list"),
        ({"image": "a", "containerEnv": [1]}, "does not hold keys"),
        ({"image": "a", "containerEnv": {"A": ["${localEnv:X}"]}}, "containerEnv: A is not a text"),
        ({"build": {"dockerfile": "D" * 5000}}, "no path that can be followed"),
        ({"build": {"dockerfile": "Dockerfile", "context": "x" * 300}}, "no path that can be followed"),
        ({"build": {"dockerfile": "loop"}}, "no path that can be followed"),
    ],
)
def test_what_a_project_may_not_say(tmp_path: Path, says: dict[str, Any], wrong: str) -> None:
    """It is one sentence with the file's name; nothing outside of the project is read."""
    folder = write(tmp_path / "p", **says)
    (folder / ".devcontainer/link").symlink_to("/etc/hostname")
    (folder / ".devcontainer/loop").symlink_to("loop")
    with pytest.raises(DataError, match=wrong) as raised:
        read_project(folder, {"X": "x"})
    assert raised.value.message.startswith(f"{folder}/.devcontainer/devcontainer.json: ")


def test_files_that_are_not_there_or_elsewhere(tmp_path: Path) -> None:
    """No folder, no file, and a file that is a link to another place."""
    with pytest.raises(UsageError, match="is not a folder"):
        read_project(tmp_path / "absent")
    with pytest.raises(NotFoundError, match=r"has no \.devcontainer/devcontainer\.json"):
        read_project(tmp_path)
    (tmp_path / "elsewhere.json").write_text('{"image": "a"}')
    (tmp_path / "p").mkdir()
    (tmp_path / "p/.devcontainer.json").symlink_to("../elsewhere.json")
    with pytest.raises(DataError, match="leads out of the project's folder"):
        read_project(tmp_path / "p")


def test_a_variable_that_is_allowed_and_not_set(tmp_path: Path) -> None:
    """Its default counts, and nothing is told of it."""
    build = {"dockerfile": "Dockerfile", "args": {"A": "${localEnv:UNSET:other}"}}
    found = read_project(write(tmp_path / "p", build=build), {}, ["UNSET"])
    assert isinstance(found.base, DockerBuild)
    assert (found.base.args, found.notes) == ({"A": "other"}, ())


def test_a_machine_that_has_less() -> None:
    """What is missing is named; what the project does not say is no matter."""
    check_host(Requirements(2, GIB), cpus=2, memory=GIB)
    check_host(Requirements(), cpus=1, memory=1)
    with pytest.raises(UsageError, match=rf"cpus 3, memory {GIB + 1}"):
        check_host(Requirements(3, GIB + 1), cpus=2, memory=GIB)


def test_local_names_and_defaults() -> None:
    """In texts at any depth; a default is taken for what is not allowed, and is empty when it is written so."""
    value = {"a": ["${localEnv:ONE}", {"b": "x${localEnv:TWO:y}${containerEnv:THREE}"}], "c": 1}
    assert devjson.local_names(value) == {"ONE", "TWO"}
    assert devjson.fill("${localEnv:A:b:c}${localEnv:A:}${X}") == ("b:c${X}", ["X"])
    assert devjson.fill("${localEnv:A}", {"B": "c"}) == ("${localEnv:A}", ["localEnv:A"])
