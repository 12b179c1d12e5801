"""Commands that write on a full disk: one error each, nothing half done, and all of it works once there is room."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.servers.running import Running
from support.servers.world import World

pytestmark = pytest.mark.root
VALUE = "a-value-of-some-length"


class Small:
    """A server whose data is on a small disk, with the sheds `dev`, which runs, and `other`, which is stopped."""

    def __init__(self, root: Path) -> None:
        self.world = World(root)
        self.server = Running(self.world)
        self.ballast = self.world.paths.data / "ballast"
        self.env = {**os.environ, "SHED_SERVER": f"unix://{self.server.socket}", "HOME": str(root)}
        for words in (("create", "dev"), ("create", "other"), ("stop", "other")):
            self.shed(*words)

    def shed(self, *words: str, code: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run the command line."""
        command = [sys.executable, "-m", "shed.cli.main", *words]
        done = subprocess.run(command, env=self.env, input=stdin, capture_output=True, text=True, check=False)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done
        return done

    def state(self) -> list[Any]:
        """Return all that can change: sheds, ports, secrets, and which files there are."""
        sheds = json.loads(self.shed("list", "--json").stdout)
        for shed in sheds:
            shed.pop("detail", None)  # it tells of the full disk
        ports = json.loads(self.shed("ports", "dev", "--json").stdout)
        del ports["listening"]  # the fake guest is this machine, where others listen
        files = {str(path) for path in self.world.paths.instances.rglob("*") if not path.name.endswith(".lock")}
        files |= {str(path) for path in self.world.paths.uppers.rglob("*")}
        return [sheds, ports, json.loads(self.shed("secret", "list", "--json").stdout), files]

    def fill(self) -> None:
        """Leave not a byte."""
        with self.ballast.open("wb", buffering=0) as file:
            for size in (1 << 20, 4096):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def end(self) -> None:
        """End the server and its VMs."""
        self.server.end()
        self.world.kill_machines()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    """Such a server."""
    root = tmp_path_factory.mktemp("small")
    disk = root / "data"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m,mode=0700", "tmpfs", disk], check=True)
    try:
        made = Small(root)
        yield made
        made.end()
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize(
    "words",
    [
        ["create", "new", "-e", "A=1"],
        ["create", "new", "--ttl", "1h"],
        ["update", "dev", "--ttl", "1h"],
        ["update", "dev", "--restart", "always"],
        ["update", "dev", "--cpus", "3"],
        ["update", "other", "--upper-size", "8G"],
        ["rename", "other", "another"],
        ["secret", "set", "key", "--host", "api.example.com"],
        ["ports", "dev", "-p", "80"],
        ["ports", "dev", "--host-port", "5432"],
    ],
    ids=" ".join,
)
def test_a_full_disk_is_told_and_changes_nothing(small: Small, words: list[str]) -> None:
    """By one error with its hint, by people's words and for programs; then there is room, and it works."""
    before = small.state()
    small.fill()
    try:
        told = small.shed(*words, code=1, stdin=VALUE).stderr
        assert [line.partition(":")[0] for line in told.splitlines() if not line.startswith(" ")][-2:] == [
            "error",
            "hint",
        ], told
        assert "space" in told, told
        error = json.loads(small.shed(*words, "--json", code=1, stdin=VALUE).stderr.splitlines()[-1])
        assert error["error"]["code"] in {"NO_SPACE", "DISK_RESERVE", "STORAGE"}, error
        assert small.state() == before
    finally:
        small.ballast.unlink()
    small.shed(*words, stdin=VALUE)
    after = small.state()
    assert after != before
    if words[0] == "create":
        small.shed("delete", "new", "--force")
