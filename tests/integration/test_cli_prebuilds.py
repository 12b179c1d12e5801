"""`shed prebuild`, against a server whose VMs are fake: what is printed, and what a create from a prebuild has."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.servers.fake_server import fake_server

pytestmark = pytest.mark.timeout(300)
Shed = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def shed(tmp_path: Path) -> Iterator[Shed]:
    """Returns a function that runs `shed`."""
    with fake_server(tmp_path) as env:

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "shed.cli.main", *words]
            return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

        yield run


def ok(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a command that succeeded printed."""
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_from_making_to_removing(shed: Shed) -> None:
    """Progress and the next step are told, lists are short, and a shed that is made from it has its settings."""
    assert "make one: shed prebuild create" in shed("prebuild", "ls").stderr
    made = shed("prebuild", "create", "web", "--image", "base", "-e", "A=1", "--run", "true", "--run", "echo hi")
    assert made.returncode == 0
    assert "command 2 of 2: echo hi" in made.stderr
    assert "shed create NAME --prebuild web" in made.stderr
    row = ok(shed("prebuild", "list")).splitlines()[1].split()
    assert row[:3] == ["web", "ready", "base"]
    ok(shed("create", "dev", "--prebuild", "web"))
    found: dict[str, Any] = json.loads(ok(shed("--json", "inspect", "dev")))
    assert (found["env"], found["image"]) == (["A"], "base")
    built = json.loads(ok(shed("--json", "prebuild", "build", "web")))
    assert (built["action"], built["name"], built["snapshot"]) == ("prebuild", "web", "web.2")
    assert "removed web" in ok(shed("prebuild", "rm", "web"))
    assert "SHED" in ok(shed("snapshot", "ls")) or not shed("snapshot", "ls").stdout


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["prebuild", "create", "web", "--run", "echo gone wrong; exit 4"], 1, "ended with 4"),
        (["prebuild", "create", "Web"], 2, "invalid shed name"),
        (["prebuild", "create", "web", "--run", ""], 2, "command 1 is empty"),
        (["prebuild", "create", "web", "--every", "1s"], 2, "every 1 s"),
        (["prebuild", "build", "web"], 1, "there is no prebuild 'web'"),
        (["prebuild", "rm", "web"], 1, "there is no prebuild 'web'"),
        (["create", "dev", "--prebuild", "web"], 1, "there is no prebuild 'web'"),
        (["create", "dev", "--prebuild", "web", "--image", "base"], 2, "leave out the others"),
    ],
)
def test_what_goes_wrong(shed: Shed, words: list[str], status: int, says: str) -> None:
    """One error with a next step, and nothing is left."""
    done = shed(*words)
    assert (done.returncode, "Traceback" in done.stderr) == (status, False)
    assert says in done.stderr
    assert "hint: " in done.stderr
    assert json.loads(ok(shed("--json", "list"))) == json.loads(ok(shed("--json", "prebuild", "ls"))) == []
