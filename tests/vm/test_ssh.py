"""The OpenSSH client in a real shed: what crosses client, front, QEMU and agent."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from support.kit import copy_store
from support.ssh import Ssh, free_port, output_of

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]
SHED = [sys.executable, "-m", "shed.cli.main"]


class Machine:
    """A machine with the sheds ``dev``, of the base image, and ``bare``, of a static busybox."""

    def __init__(self, root: Path) -> None:
        folders = {"SHED_DATA_DIR": str(root / "data"), "SHED_RUNTIME_DIR": str(root / "run"), "HOME": str(root)}
        self.env = {key: value for key, value in os.environ.items() if key != "SHED_SERVER"} | folders
        self.ssh = Ssh(root / "ssh", free_port())
        (root / ".config/shed").mkdir(parents=True)
        (root / ".config/shed/server.yaml").write_text(f"ssh_port: {self.ssh.port}\n")

    def shed(self, *words: str) -> str:
        """Run the command line and return what it prints."""
        return subprocess.run([*SHED, *words], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def machine(base_store: LayoutStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """The machine, for all tests: none leaves anything in the sheds."""
    root = tmp_path_factory.mktemp("machine")
    copy_store(base_store, root / "data/images")
    machine = Machine(root)
    try:
        machine.shed("create", "dev", "--image", "base", "--memory", "512M")
        machine.shed("create", "bare", "--image", "busybox", "--memory", "384M")
        yield machine
    finally:
        for name in ("dev", "bare"):
            subprocess.run([*SHED, "delete", name, "--force"], env=machine.env, capture_output=True, check=False)
        machine.shed("server", "stop")


@pytest.mark.parametrize("name", ["dev", "bare"])
def test_outputs_and_exit_status(machine: Machine, name: str) -> None:
    """With bash, and in an image that has none."""
    done = machine.ssh.run(f"{name}@shed", "echo $((6 * 7)); cat; echo err >&2; exit 9", stdin=b"in", code=9)
    assert (done.stdout, done.stderr) == (b"42\nin", b"err\n")


def test_clients_start_a_stopped_shed(machine: Machine) -> None:
    """All of them get in, and each is told what it waits for."""
    machine.shed("stop", "bare")
    clients = [machine.ssh.start("bare@shed", f"echo {number}") for number in range(10)]
    for number, (out, errors, code) in enumerate(output_of(clients)):
        assert (out, errors, code) == (b"%d\n" % number, b"Starting shed 'bare'...\n", 0)
