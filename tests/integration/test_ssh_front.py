"""The SSH front of a real server with the real OpenSSH client; the VMs are the fake backend's."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.running import Running
from support.ssh import Ssh, free_port, output_of
from support.world import World


class Host:
    """A server, and clients of its SSH front."""

    def __init__(self, root: Path, **settings: object) -> None:
        self.root = root
        self.ssh = Ssh(root / "ssh", free_port())
        self.world = World(root / "w")
        (root / "w").mkdir(exist_ok=True)
        (root / "w/ssh").write_text(json.dumps({"ssh_port": self.ssh.port, **settings}))
        self.start()

    def start(self) -> None:
        """Start the server."""
        self.server = Running(self.world)

    def create(self, name: str) -> None:
        """Make a shed."""
        status, answer = self.server.request("POST", "/api/sheds", json.dumps({"name": name, "image": "base"}))
        assert status == 201, answer

    def get(self, path: str) -> dict[str, object]:
        """Ask the server for something."""
        status, answer = self.server.request("GET", path)
        assert status == 200, answer
        return json.loads(answer)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with the shed ``dev``."""
    host = Host(tmp_path_factory.mktemp("host"))
    try:
        host.create("dev")
        yield host
    finally:
        host.server.end()
        host.world.kill_machines()


def test_output_errors_and_exit_status(host: Host) -> None:
    """Of a raw command, which a shell takes apart."""
    done = host.ssh.run("dev@shed", "echo out | tr o O; echo err >&2; exit 7", code=7)
    assert (done.stdout, done.stderr) == (b"Out\n", b"err\n")


@pytest.mark.parametrize("name", ["nope", "_api", "_bootstrap", "No Shed", "x" * 200])
def test_there_is_no_such_shed(host: Host, name: str) -> None:
    """One line, exit status 1, whatever the name; reserved ones are no sheds."""
    done = host.ssh.run("-l", name, "shed", "true", code=1)
    assert done.stderr == f"Error: shed '{name}' not found\n".encode()


def test_ten_clients_start_one_shed(host: Host) -> None:
    """Each is told, none is turned away, and there is one VM."""
    host.server.request("POST", "/api/sheds/dev/stop")
    clients = [host.ssh.start("dev@shed", f"echo {number}; cat") for number in range(10)]
    for number, (out, errors, code) in enumerate(output_of(clients)):
        assert (out, code) == (b"%d\n" % number, 0), errors
        assert errors == b"Starting shed 'dev'...\n"
    assert len(host.world.machines()) == 1


def test_the_host_key_is_made_once(host: Host) -> None:
    """Private, told by the API, and the one that clients see."""
    host.ssh.run("dev@shed", "true")
    told = str(host.get("/api/ssh-host-key")["host_key"])
    assert told in (host.ssh.folder / "known_hosts").read_text()
    key = host.world.paths.data / "ssh_host_ed25519_key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert subprocess.run(["ssh-keygen", "-y", "-f", key], capture_output=True, text=True, check=True).stdout.split()[:2] == told.split()


def test_the_port_is_told(host: Host) -> None:
    """By the API, for those who make a configuration for ssh."""
    assert host.get("/api/info")["ssh_port"] == host.ssh.port
