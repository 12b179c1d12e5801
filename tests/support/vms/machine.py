"""A user's machine: the real command line, which starts a real server, in folders of the test's own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.vms.templates import EITHER, WARM, lend
from support.waiting import wait_until

CHECKED = Path(__file__).parents[1] / "servers/checked"
"""On the PYTHONPATH, it has the server held to the contract."""


class Machine:
    """A user's machine with an image store of its own; `shed` starts the server when it needs it."""

    def __init__(self, root: Path, *, way: str = "", settings: str = "") -> None:
        """`way` is how its VMs come up: ``cold``, ``warm`` from templates that are lent, ``either`` with its own;
        empty: there are none.

        `settings` are more lines of the server's configuration, behind those below ``qemu``.
        """
        self.data = root / "data"
        self.way = way
        if way:
            lend(self.data, way)
        environment = {"SHED_DATA_DIR": str(self.data), "SHED_RUNTIME_DIR": str(root / "run"), "HOME": str(root)}
        environment["PYTHONPATH"] = str(CHECKED)
        self.environment = {**os.environ, **environment}
        self.environment.pop("SHED_SERVER", None)
        self.command = [sys.executable, "-m", "shed.cli.main"]
        config = root / ".config/shed/server.yaml"
        config.parent.mkdir(parents=True, exist_ok=True)
        front = "" if "ssh_port:" in settings else "ssh_port: 0\n"  # the usual port is one for the whole machine
        config.write_text(f"{front}qemu:\n  warm_start: {str(way in (WARM, EITHER)).lower()}\n{settings}")

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start the command line."""
        pipe = subprocess.PIPE
        return subprocess.Popen([*self.command, *words], stdout=pipe, stderr=pipe, env=self.environment)

    def try_shed(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run the command line."""
        command = [*self.command, *words]
        return subprocess.run(command, input=stdin, capture_output=True, env=self.environment, check=False)

    def shed(self, *words: str, stdin: bytes = b"") -> str:
        """Run the command line, which must succeed, and return what it prints."""
        done = self.try_shed(*words, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode() + self.consoles()
        return done.stdout.decode()

    def show(self, name: str) -> dict[str, Any]:
        """Return what the server knows of a shed."""
        (found,) = [shed for shed in json.loads(self.shed("list", "--json")) if shed["name"] == name]
        assert isinstance(found, dict)
        return found

    def server_pid(self) -> int:
        """Return the process id of the server."""
        return int(json.loads(self.shed("server", "status", "--json"))["pid"])

    def consoles(self) -> str:
        """Return the ends of all consoles and of the server's log, for a test that fails."""
        logs = [*self.data.glob("instances/*/console.log"), *self.data.glob("logs/*.log")]
        return "".join(
            f"\n--- {path.name} of {path.parent.name}\n{path.read_text(errors='replace')[-3000:]}" for path in logs
        )

    def end(self) -> None:
        """Delete all sheds and stop the server; then nothing of it runs, and all its VMs came up as they were meant
        to.
        """
        for path in (self.data / "instances").glob("[a-z]*"):
            self.try_shed("delete", "--force", path.name)
        self.try_shed("server", "stop")
        processes = Path("/proc")
        wait_until(
            lambda: [entry.name for entry in processes.iterdir() if entry.name.isdigit() and self._is_ours(entry)] == []
        )
        assert self.way == EITHER or self._boots() <= {self.way}

    def _is_ours(self, process: Path) -> bool:
        return works_for(process, self.data)

    def _boots(self) -> set[str]:
        """Return how VMs came up, as the logs say."""
        return {
            way for log in self.data.glob("logs/server.log*") for way in re.findall(r" boot=(\w+)", log.read_text())
        }


def ended(pid: int) -> bool:
    """Tell whether a process is gone, or has nothing open any more.

    Its words vanish before its sockets do, and it is a zombie while threads of it still have them.
    """
    process = Path(f"/proc/{pid}")
    try:
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        return state in {"Z", "X"} and len(list((process / "task").iterdir())) == 1
    except OSError:
        return True


def works_for(process: Path, folder: Path) -> bool:
    """Tell whether a process was told of `folder`, or has a file in it open; `process` is its folder in /proc."""
    if str(folder).encode() in command_line(process):
        return True
    with contextlib.suppress(OSError):
        for descriptor in list((process / "fd").iterdir()):
            with contextlib.suppress(OSError):
                if descriptor.readlink().is_relative_to(folder):
                    return True
    return False


def command_line(process: Path) -> bytes:
    """Return the words of a process, nothing when it is gone; `process` is its folder in /proc."""
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""
