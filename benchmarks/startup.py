"""What starting `shed` costs in processor time, beside the interpreter doing nothing, for each kind of command.

A scripted server answers at once, so what is measured is the client alone.  With "a configuration", ~/.shed/config.yaml
names that server; without, SHED_SERVER does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Sample, Subject, compare, show
from support.servers.scripted_server import Conversation, ScriptedServer

SHED = Path(sys.executable).with_name("shed")
COMMANDS = {
    "shed version": ["version"],
    "shed image build --help": ["image", "build", "--help"],
    "completion of `shed image build --`": ["__complete", "bash", "shed image build --"],
}
"""Those that ask no server."""
ASKING = {
    "completion of `shed stop `": ["__complete", "bash", "shed stop "],
    "shed list": ["list"],
    "shed create": ["create", "dev"],
    "shed exec": ["exec", "dev", "--", "true"],
}
"""Those that do."""
_LINE = {"name": "dev", "status": "running", "created_at": "2026-01-01T00:00:00Z", "image": "base", "cpus": 2}


def processor(words: list[str | Path], env: dict[str, str]) -> Subject:
    """Return a subject that runs a command and takes the seconds of processor that it used.

    A command that fails ends the benchmark.
    """

    def subject() -> Sample:
        child = subprocess.Popen(
            words, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            sys.exit(f"{words}: exit code {child.returncode}")
        return Sample(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)

    return subject


def answer(conversation: Conversation) -> None:
    """Answer as a server with one shed does."""
    method, target = conversation.request.split(" ", 1)
    if target.endswith("/exec"):
        conversation.upgrade()
        conversation.exit(0)
    else:
        conversation.answer(200, json.dumps(_LINE if method == "POST" else {"sheds": [_LINE], "warnings": []}).encode())


def main() -> None:
    """Compare each command with the interpreter, twenty times: they are short."""
    with tempfile.TemporaryDirectory() as folder, ScriptedServer(Path(folder) / "s.sock", answer) as server:
        env = {"HOME": folder, "PATH": os.environ["PATH"], "SHED_RUNTIME_DIR": f"{folder}/run"}
        for name, words in COMMANDS.items():
            measure(name, words, env)
        for name, words in ASKING.items():
            measure(name, words, {**env, "SHED_SERVER": server.url})
        (Path(folder) / ".shed").mkdir()
        (Path(folder) / ".shed/config.yaml").write_text(
            f"default_server: lab\nservers:\n  lab:\n    url: {server.url}\n"
        )
        for name, words in ASKING.items():
            measure(f"{name}, with a configuration", words, env)


def measure(name: str, words: list[str], env: dict[str, str]) -> None:
    """Compare one command with the interpreter and print the figures."""
    result = compare(processor([SHED, *words], env), processor([sys.executable, "-c", "pass"], env), runs=20, warmup=2)
    show("processor", name, "python3 -c pass", result)
