"""What starting up costs, counted in modules: time depends on the machine, imports do not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from shed.client import config, config_state
from support.servers.scripted_server import Conversation, ScriptedServer

SHOW = "import sys; from shed.cli.main import main; code = main(); print(code, *sorted(sys.modules), file=sys.stderr)"
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
    "shed.errors",
    "shed.execstream",
    "shed.guest",
    "shed.guest.protocol",
    "shed.names",
    "shed.version",
}
"""All of shed that a command needs."""


def modules(*words: str, env: dict[str, str]) -> set[str]:
    """Return what is imported when `shed` has done its work; -S and -I keep out what this Python's site adds."""
    path = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2] / 'src')!r}); sys.argv[:] = ['shed', "
        f"*{words!r}]; "
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", path + SHOW],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        env=env,
    )
    code, *found = done.stderr.split()
    assert code == "0"
    return set(found)


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
    assert {name for name in found if name.startswith("shed.")} == EXEC


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
    assert {name for name in found if name.startswith("shed.")} == EXEC | {"shed.guest.wirejson"}
