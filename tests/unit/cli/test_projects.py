"""What `--devcontainer` makes of a command line, before and after an image is built."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shed.cli import project as command
from shed.cli.app import run
from shed.cli.options import Options
from shed.config.server import Settings
from shed.errors import NotFoundError, UsageError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, and an image of it that is there already."""
    for name in ("SHED_DATA_DIR", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    result = SimpleNamespace(reused=True)
    built = command.BuiltProject(result, "", {})  # type: ignore[arg-type]
    monkeypatch.setattr(command, "build_project", lambda *_: built)
    return write(tmp_path / "a project!", hostRequirements={"cpus": 2, "memory": "3gb", "storage": "7gb"})


def write(folder: Path, **says: Any) -> Path:
    """Write a project's file."""
    folder.mkdir(exist_ok=True)
    (folder / ".devcontainer.json").write_text(json.dumps({"image": "base", **says}))
    return folder


def words(folder: Path, **given: Any) -> Any:
    """Return the words of a `shed create`."""
    names = ("image", "from_snapshot", "prebuild", "cpus", "memory", "upper_size", "repo", "local_dir")
    args: dict[str, Any] = {**dict.fromkeys(names), "name": "dev", "devcontainer": str(folder), "local_env": []}
    return SimpleNamespace(**{**args, **given})


def test_a_shed_gets_what_its_project_asks_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its image, by a name of its own; what it needs, unless the command line says; its folder, unless another one."""
    args = words(folder)
    found = command.project_of_shed(args, Options())
    image = str(found["image"])
    assert image.startswith("devcontainer-aproject-")
    assert (found["cpus"], found["memory_mb"], found["upper_size_bytes"]) == (2, 3072, 7 << 30)
    assert args.local_dir == f"{folder}:rw"
    assert f"{image} is up to date" in capsys.readouterr().err
    args = words(folder, cpus=2, memory=512, repo="https://example.com/x")
    found = command.project_of_shed(args, Options())
    assert (found["cpus"], found["memory_mb"], args.local_dir) == (2, 512, None)
    assert found["image"] == image


def test_variables_and_ports(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Only those that are allowed come along, with a default if they are not set; ports are told with the command."""
    env = {"A": "${localEnv:ONE}", "B": "${localEnv:TWO}", "C": "${localEnv:UNSET:other}"}
    wanted = {"vscode": {"extensions": ["a.b", "c.d-e", "x", 1, "\x1b.y"]}}
    write(folder, remoteEnv=env, forwardPorts=[1, 2], customizations=wanted)
    monkeypatch.setenv("ONE", "1")
    monkeypatch.setenv("TWO", "2")
    found = command.project_of_shed(words(folder, local_env=["ONE", "UNSET"]), Options())
    assert found["env"] == {"A": "1"}  # the shed takes the default of C itself
    said = capsys.readouterr().err
    assert "shed forward dev 1 2" in said
    assert "extensions in the editor: a.b c.d-e\n" in said


def test_a_project_that_asks_for_little(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it asks for is the least: a shed has what any has.  More than any can have is told before the build."""
    write(folder, hostRequirements={"cpus": 1, "memory": "64mb", "storage": "500mb"})
    found = command.project_of_shed(words(folder), Options())
    usual = Settings()
    assert (found["cpus"], found["memory_mb"]) == (usual.default_cpus, usual.default_memory_mb)
    assert found["upper_size_bytes"] == usual.default_upper_size
    monkeypatch.setattr(command, "build_project", None)
    write(folder, hostRequirements={"storage": "1tb"})
    with pytest.raises(UsageError, match="bytes of storage"):
        command.project_of_shed(words(folder), Options())


def test_force_of_a_create_builds_nothing_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is about the memory of the host."""
    given: list[Any] = []
    built = command.BuiltProject(SimpleNamespace(reused=True), "", {})  # type: ignore[arg-type]

    def build(*_: object, **more: Any) -> command.BuiltProject:
        given.append(more)
        return built

    monkeypatch.setattr(command, "build_project", build)
    command.project_of_shed(words(folder, force=True), Options())
    assert not any(more.get("force") for more in given)
    assert given


def test_what_is_refused(folder: Path) -> None:
    """Other images beside it, a project that needs more than there is, one without a file, and options without one."""
    for name in ("image", "from_snapshot", "prebuild"):
        with pytest.raises(UsageError, match=f"cannot be combined with --{name.replace('_', '-')}"):
            command.project_of_shed(words(folder, **{name: "x"}), Options())
    write(folder, hostRequirements={"cpus": 100_000})
    with pytest.raises(UsageError, match="want 100000 cpus, and a shed can have 64"):
        command.project_of_shed(words(folder), Options())
    command.project_of_shed(words(folder, cpus=1), Options())
    with pytest.raises(NotFoundError, match=r"has no \.devcontainer"):
        command.project_of_shed(words(folder.parent), Options())
    with pytest.raises(UsageError, match="are for --devcontainer"):
        run(["image", "build", "-n", "dev", "--lock", "."], Options())
    with pytest.raises(UsageError, match="cannot be combined with CONTEXT, --target"):
        run(["image", "build", "-n", "dev", "--devcontainer", str(folder), "--target", "x", "."], Options())
