"""Real sheds that end when their time is up, and real ones that start again when their VM has ended."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.vms.machine import Machine
from support.waiting import wait_until

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def machine(way: str, base_store: LayoutStore, tmp_path: Path) -> Iterator[Machine]:
    """A machine with the base image."""
    copy_store(base_store, tmp_path / "data/images")
    made = Machine(tmp_path, way=way)
    yield made
    made.end()


def test_a_shed_in_use_is_deleted_when_its_time_is_up(machine: Machine) -> None:
    """The command that runs in it ends with it; nothing of it is left."""
    machine.shed("create", "dev")
    pid = machine.show("dev")["pid"]
    running = machine.start("exec", "dev", "--", "sh", "-c", "echo begun; exec sleep 1000")
    assert running.stdout is not None
    assert running.stdout.readline() == b"begun\n"
    machine.shed("update", "dev", "--ttl", "1s")
    running.communicate(timeout=300)
    assert running.returncode != 0
    wait_until(lambda: not (machine.data / "uppers/dev").exists())
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    assert machine.shed("list", "-q") == ""
    assert "its time was up" in machine.shed("events", "--json")


def test_a_shed_starts_again(machine: Machine) -> None:
    """When its VM is killed; when that happens while no server runs; with what it had on its disk."""
    machine.shed("create", "dev", "--restart", "always")
    machine.shed("exec", "dev", "--", "sh", "-c", "echo kept >file; sync")
    before = machine.show("dev")["pid"]
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: machine.show("dev").get("pid") not in {None, before}, what="its VM was started again")
    assert machine.shed("exec", "dev", "--", "cat", "file") == "kept\n"
    before = machine.show("dev")["pid"]
    machine.shed("server", "stop")
    os.kill(before, signal.SIGKILL)
    machine.shed("server", "start")
    wait_until(lambda: machine.show("dev")["status"] == "running", what="it runs again with the next server")
    assert machine.shed("exec", "dev", "--", "cat", "file") == "kept\n"
    machine.shed("exec", "dev", "--user", "root", "--", "poweroff")
    wait_until(lambda: machine.show("dev")["status"] == "stopped")
