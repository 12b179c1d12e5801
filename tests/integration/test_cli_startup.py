"""What starting up costs, counted in modules: time depends on the machine, imports do not."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from shed.client import config, config_state
from support.servers.scripted_server import Conversation, ScriptedServer

SHOW = "import sys; from shed.cli.main import main; code = main(); print(code, *sorted(sys.modules))"
SLOW = {
    *(
        "argparse",
        "asyncio",
        "collections",
        "contextlib",
        "dataclasses",
        "enum",
        "functools",
        "h11",
        "inspect",
        "json",
        "pathlib",
        "re",
    ),
    *("selectors", "signal", "socket", "subprocess", "tempfile", "threading", "typing", "urllib", "yaml"),
}
"""Each of these takes longer to import than all that `exec` needs."""
EXEC = {
    "shed.cli",
    "shed.cli.exec",
    "shed.cli.main",
    "shed.cli.options",
    "shed.cli.running",
    "shed.client",
    "shed.client.address",
    "shed.client.config",
    "shed.client.execution",
    "shed.client.transport",
    "shed.config",
    "shed.config.paths",
    "shed.error_codes",
    "shed.errors",
    "shed.execstream",
    "shed.guest",
    "shed.guest.protocol",
    "shed.names",
    "shed.version",
}
"""All of shed that a command needs."""
DECLARED = {
    "shed.cli",
    "shed.cli.app",
    "shed.cli.arguments",
    "shed.cli.command",
    "shed.cli.main",
    "shed.cli.options",
    "shed.error_codes",
    "shed.errors",
    "shed.version",
}
"""All of shed that is needed to know what commands there are."""
OF_MODULES = {
    "shed.cli.connection",
    "shed.cli.errors",
    "shed.cli.making",
    "shed.cli.output",
    "shed.cli.values",
    "shed.terminal",
    "shed.terminal.output",
    "shed.text",
}
"""What modules of commands import beside: nothing of it does their work."""
WORK = {"asyncio", "h11", "json", "msgspec", "socket", "subprocess", "threading", "typing", "urllib", "yaml"}
"""Modules that no help and no completion of words may import."""
SERVER_WORK = SLOW - {"collections"} | {"h11", "msgspec", "shutil"}
"""Modules that a command which asks the server may not import."""
REQUEST = (
    DECLARED
    | OF_MODULES - {"shed.cli.errors"}
    | {
        "shed.cli.sheds",
        "shed.client",
        "shed.client.address",
        "shed.client.config",
        "shed.client.failures",
        "shed.client.http",
        "shed.client.messages",
        "shed.client.sync",
        "shed.client.sync.api",
        "shed.client.sync.attached",
        "shed.client.sync.driver",
        "shed.client.sync.network",
        "shed.client.sync.requests",
        "shed.client.sync.access",
        "shed.client.sync.secrets",
        "shed.client.sync.prebuilds",
        "shed.client.sync.snapshots",
        "shed.client.transport",
        "shed.config",
        "shed.config.paths",
        "shed.guest",
        "shed.guest.wirejson",
        "shed.names",
        "shed.progress",
        "shed.sizes",
        "shed.terminal.progress",
    }
)
"""All of shed that a command needs which asks the server."""


def modules(*words: str, env: dict[str, str]) -> set[str]:
    """Return what is imported when `shed` has done its work; -S and -I keep out what this Python's site adds."""
    path = (
        f"import sys; sys.path[:] = [{str(Path(__file__).parents[2] / 'src')!r}, *sys.path, "
        f"{sysconfig.get_path('purelib')!r}]; sys.argv[:] = ['shed', *{words!r}]; "
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", path + SHOW],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        env=env,
    )
    code, *found = done.stdout.splitlines()[-1].split()
    assert code == "0"
    return set(found)


def of_shed(found: set[str]) -> set[str]:
    """Return those of shed."""
    return {name for name in found if name.startswith("shed.")}


def test_version_imports_next_to_nothing() -> None:
    """Scripts ask for it."""
    found = modules("version", env={})
    assert {name for name in found if name.startswith("shed")} == {"shed", "shed.cli", "shed.cli.main", "shed.version"}
    assert not found & SLOW


def test_exec_imports_little(tmp_path: Path) -> None:
    """A whole round trip, and none of the modules that would take longer than it."""

    def script(c: Conversation) -> None:
        c.upgrade()
        c.exit(0)

    with ScriptedServer(tmp_path / "s.sock", script) as server:
        found = modules("exec", "dev-1", "--", "true", env={"SHED_SERVER": server.url, "HOME": str(tmp_path)})
    assert not found & SLOW
    assert of_shed(found) == EXEC


def test_exec_imports_as_little_with_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once its YAML was read, and although commands have noted things beside it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(config, "_RACY_NS", -1)
    monkeypatch.delenv("SHED_SERVER", raising=False)

    def script(c: Conversation) -> None:
        c.upgrade()
        c.exit(0)

    with ScriptedServer(tmp_path / "s.sock", script) as server:
        (tmp_path / ".shed").mkdir()
        (tmp_path / ".shed/config.yaml").write_text(f"default_server: lab\nservers: {{lab: {{url: '{server.url}'}}}}\n")
        config_state.remember(config.load(), "lab", {"dev-1": "running"})
        found = modules("exec", "dev-1", "--", "true", env={"HOME": str(tmp_path)})
    assert not found & SLOW
    assert of_shed(found) == EXEC | {"shed.guest.wirejson"}


@pytest.mark.parametrize("words", [["--help"], ["image", "--help"], ["image", "build", "--help"], ["create", "-h"]])
def test_help_imports_declarations_alone(words: list[str]) -> None:
    """Neither what does the work, nor argparse, nor the modules of other commands."""
    found = modules(*words, env={})
    assert not found & (WORK | {"argparse", "dataclasses", "re"})
    module = {"image": {"shed.cli.image"}, "create": {"shed.cli.sheds"}}.get(words[0], set())
    module |= {"shed.cli.image_build"} if "build" in words else set()
    used = of_shed(found) - DECLARED - {"shed.cli.help"}
    assert module <= used <= module | OF_MODULES


@pytest.mark.parametrize("line", ["shed st", "shed image b", "shed image build --", "shed create dev --l"])
def test_completion_of_words_imports_declarations_alone(line: str) -> None:
    """A key that is pressed twice must not take longer than the finger."""
    found = modules("__complete", "bash", line, env={})
    assert not found & (WORK | {"argparse", "dataclasses", "re"})
    module = {"image": {"shed.cli.image"}, "create": {"shed.cli.sheds"}}.get(line.split()[1], set())
    module |= {"shed.cli.image_build"} if "build" in line else set()
    used = of_shed(found) - DECLARED - {"shed.cli.completion"}
    assert module <= used <= module | OF_MODULES


LINE = {"name": "dev", "status": "running", "created_at": "2026-01-01T00:00:00Z", "image": "base", "cpus": 2}


@pytest.mark.parametrize("words", [["list"], ["create", "dev", "--memory", "2G"]])
@pytest.mark.parametrize("configured", [False, True])
def test_a_command_of_the_server_imports_little(
    words: list[str], *, configured: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole round trip without what only images, other servers or a first start need."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(config, "_RACY_NS", -1)
    monkeypatch.delenv("SHED_SERVER", raising=False)

    def script(c: Conversation) -> None:
        shed = json.dumps(LINE if c.request.startswith("POST") else {"sheds": [LINE], "warnings": []})
        c.answer(200, shed.encode())

    with ScriptedServer(tmp_path / "s.sock", script) as server:
        env = {"HOME": str(tmp_path)}
        if configured:
            (tmp_path / ".shed").mkdir()
            text = f"default_server: lab\nservers: {{lab: {{url: '{server.url}'}}}}\n"
            (tmp_path / ".shed/config.yaml").write_text(text)
            config_state.remember(config.load(), "lab", {"dev": "running"})
        else:
            env["SHED_SERVER"] = server.url
        found = modules(*words, env=env)
    assert not found & SERVER_WORK
    assert of_shed(found) == REQUEST
