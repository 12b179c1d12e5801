"""Completion in the real shells, and what it answers them."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shed.cli.app import SHED
from shed.cli.completion import complete, split
from support.servers.scripted_server import Conversation, ScriptedServer

TIMEOUT = 60.0
PATIENT = f"""\
import sys
from shed.cli import completion, main
completion._PATIENCE = {TIMEOUT}
sys.exit(main.main())
"""
"""`shed`, which waits for a server's answer however busy the machine is."""


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment with a `shed` to call, and a server with two sheds, an image and a session; it must not be asked
    for more.
    """
    root = tmp_path_factory.mktemp("user")
    (root / "bin").mkdir()
    (root / "bin/shed").write_text(f"#!/bin/sh\nexec {sys.executable} -c '{PATIENT}' \"$@\"\n")
    (root / "bin/shed").chmod(0o755)
    (root / "folder").mkdir()
    (root / "file one").touch()
    answers = {
        "GET /api/sheds": {
            "sheds": [{"name": "alpha", "status": "running"}, {"name": "beta", "status": "stopped"}],
            "warnings": [],
        },
        "GET /api/images": {"images": [{"name": "debian-12"}, {"digest": "sha256:0"}], "warnings": []},
        "GET /api/sheds/alpha/sessions": {"sessions": [{"name": "build"}]},
    }

    def script(c: Conversation) -> None:
        c.answer(200, json.dumps(answers[c.request]).encode())

    with ScriptedServer(root / "s.sock", script) as server:
        path = f"{root}/bin:{os.environ['PATH']}"
        yield {
            "PATH": path,
            "HOME": str(root),
            "SHED_SERVER": server.url,
            "PS1": "> ",
            "TERM": "dumb",
            "LANG": "C.UTF-8",
        }


def asked(env: dict[str, str], *words: str) -> list[str]:
    """Ask as a script does; return the kind, and the words without descriptions."""
    command = [sys.executable, "-c", PATIENT, "__complete", "fish", *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return [line.partition("\t")[0] for line in done.stdout.splitlines()]


@pytest.fixture
def offered(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Return a function that tells the kind, and the words without descriptions, that can stand at the end of a
    line.
    """
    for name in ("HOME", "SHED_SERVER"):
        monkeypatch.setenv(name, env[name])
    monkeypatch.setattr("shed.cli.completion._PATIENCE", TIMEOUT)

    def offered(*words: str) -> list[str]:
        found = complete(words[:-1], words[-1])
        return [found.kind, *(word for word, _ in found.words)]

    return offered


@pytest.mark.parametrize(("words", "expected"), [
    (["sto"], ["words", "stop"]),
    (["image", "in"], ["words", "inspect"]),
    (["image", "bootkit", "b"], ["words", "build"]),
    (["stop", ""], ["words", "alpha", "beta"]),
    (["rm", "be"], ["words", "beta"]),
    (["--json", "stop", "a"], ["words", "alpha"]),
    (["stop", "alpha", ""], ["words", "beta"]),
    (["stop", "alpha", "beta", ""], ["words"]),
    (["create", ""], ["words"]),
    (["create", "x", "--image", ""], ["words", "debian-12"]),
    (["create", "x", "--image=d"], ["words", "--image=debian-12"]),
    (["create", "--cpus", "2", "x", "-i", "de"], ["words", "debian-12"]),
    (["create", "--local-dir", ""], ["folders"]),
    (["image", "rm", "debian-12", ""], ["words"]),
    (["create", "--im"], ["words", "--image"]),
    (["exec", ""], ["words", "alpha", "beta"]),
    (["exec", "-u", "root", "al"], ["words", "alpha"]),
    (["exec", "alpha", "--wo"], ["words", "--workdir"]),
    (["exec", "alpha", "--", ""], ["words"]),
    (["exec", "alpha", "ls", "-"], ["words"]),
    (["exec", "-u", ""], ["words"]),
    (["cp", ""], ["files", "alpha:", "beta:"]),
    (["cp", "alpha:/x", "b"], ["files", "beta:"]),
    (["sessions", ""], ["words", "kill", "alpha", "beta"]),
    (["sessions", "kill", "a"], ["words", "alpha"]),
    (["sessions", "kill", "alpha", ""], ["words", "build"]),
    (["image", "load", "-i", ""], ["files"]),
    (["-c", ""], ["files"]),
    (["completion", ""], ["words", "bash", "fish", "zsh"]),
    (["no-such-command", ""], ["words"]),
])  # fmt: skip
def test_what_can_stand_there(offered: Callable[..., list[str]], words: list[str], expected: list[str]) -> None:
    """By the tables and parsers that read the line when it is finished."""
    assert offered(*words) == expected


def test_all_commands_are_known(offered: Callable[..., list[str]]) -> None:
    """Each table, down to the options of each command; nothing is hidden but other names of the same."""

    def visit(path: list[str]) -> None:
        found = offered(*path, "")[1:]
        options = offered(*path, "--")
        assert "--help" in options, path
        if path and path[0] in ("exec", "console"):
            return
        for word in found:
            if len(path) < 2 and word not in (
                "alpha",
                "beta",
                "alpha:",
                "beta:",
                "debian-12",
                "build",
                "bash",
                "fish",
                "zsh",
                "local",
            ):
                visit([*path, word])

    assert offered("") == ["words", *(name for name, command in SHED.commands.items() if not command.alias_of)]
    visit([])


def test_without_a_server_there_are_no_names(tmp_path: Path) -> None:
    """And no error, no wait, and no server that was started for it."""
    env = {
        "HOME": str(tmp_path),
        "SHED_DATA_DIR": str(tmp_path / "data"),
        "SHED_RUNTIME_DIR": str(tmp_path / "run"),
        "PATH": os.environ["PATH"],
    }
    assert asked(env, "stop", "") == ["words"]
    assert asked(env, "cp", "") == ["files"]
    (tmp_path / ".shed").mkdir()
    (tmp_path / ".shed/config.yaml").write_text("servers: [broken\n")
    assert asked(env, "stop", "") == []
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("line", "expected"), [
    ("shed sto", ["sto"]),
    ("shed  'sto", ["sto"]),
    ("shed stop ", ["stop", ""]),
    ("shed ", [""]),
    ("shed create x --image=d", ["create", "x", "--image=d"]),
    ("shed exec alpha -- echo 'a b", ["exec", "alpha", "--", "echo", "a b"]),
])  # fmt: skip
def test_a_line_of_bash(line: str, expected: list[str]) -> None:
    """Taken apart as bash would, also in the middle of quotes."""
    assert split(line) == expected


class Shell:
    """An interactive shell in a terminal."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self.keyboard, line = pty.openpty()
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command], stdin=line, stdout=line, stderr=line, env=env, cwd=env["HOME"]
        )
        os.close(line)

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.keyboard)

    def type(self, keys: str, wanted: str) -> None:
        """Press keys and wait until `wanted` is shown."""
        os.write(self.keyboard, keys.encode())
        seen, deadline, waiting = "", time.monotonic() + TIMEOUT, select.poll()
        waiting.register(self.keyboard, select.POLLIN)
        while wanted not in seen:
            assert waiting.poll(max(0, deadline - time.monotonic()) * 1000), repr(seen)
            seen += os.read(self.keyboard, 65536).decode(errors="replace").replace("\a", "")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_tab(env: dict[str, str], shell: str) -> None:
    """Commands, sheds, options, values behind '=', sheds before a colon, and files."""
    assert shutil.which(shell), "scripts/setup --tests installs it"
    command, begin = {
        "bash": (["bash", "--norc", "--noprofile", "-i"], "source <(shed completion bash)"),
        "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit; compinit -u -D; source <(shed completion zsh)"),
    }[shell]
    with Shell(command, env) as terminal:
        terminal.type(f"{begin}; echo rea''dy\r", "ready\r\n")
        for keys, wanted in {
            "shed sto\t": "stop ",
            "al\t": "alpha ",
            "\x15shed create x --ima\t": "--image ",
            "de\t": "debian-12 ",
            "\x15shed create x --image=d\t": "=debian-12 ",
            "\x15shed cp al\t": "alpha:",
            "/etc fol\t": "folder/",
            "\x15shed cp fi\t": "file\\ one",
            "\x15shed sessions kill alpha \t": "build ",
        }.items():
            terminal.type(keys, wanted)


def test_fish(env: dict[str, str]) -> None:
    """The same, with descriptions."""
    assert shutil.which("fish"), "scripts/setup --tests installs it"

    def shown(line: str) -> list[str]:
        script = f"shed completion fish | source; complete -C {line!r}"
        done = subprocess.run(
            ["fish", "--no-config", "-c", script], env=env, cwd=env["HOME"], capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()

    assert shown("shed sto") == ["stop\tstop running sheds; their files stay"]
    assert shown("shed stop ") == ["alpha\trunning", "beta\tstopped"]
    assert shown("shed create x --image d") == ["debian-12"]
    assert shown("shed create x --image=d") == ["--image=debian-12"]
    assert "alpha:\trunning" in shown("shed cp ")
    assert [line.partition("\t")[0] for line in shown("shed cp fo")] == ["folder/"]
