"""Sheds that are suspended, and go on where they were."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.vms.machine import Machine, ended, works_for
from support.vms.templates import EITHER
from support.waiting import wait_until

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

COUNT = """exec 3>/root/log; i=0
while :; do i=$((i+1)); echo $i >&3; echo $i >/root/n.new; mv /root/n.new /root/n; sleep 0.05; done"""
PYTHON = (
    'r=/run/shed-runtime; for l in $r/lib/ld-linux-*; do exec $l --library-path $r/lib $r/bin/python3 -ISBc "$0"; done'
)
"""The agent's own interpreter, which is in every image."""
ECHO = """
import socket
listener = socket.create_server(("127.0.0.1", 7000))
while True:
    client = listener.accept()[0]
    client.sendall(client.recv(5))
    client.close()
"""
WHO = "hostname; cat /etc/machine-id /sys/class/net/eth0/address /run/shed/generation"


@pytest.fixture
def machine(small_store: LayoutStore, tmp_path: Path) -> Iterator[Machine]:
    """A machine with the image busybox, whose VMs come up either way."""
    copy_store(small_store, tmp_path / "data/images")
    machine = Machine(tmp_path, way="warm")
    machine.way = EITHER
    yield machine
    machine.end()


def sh(machine: Machine, script: str) -> str:
    """Run a script in the shed."""
    return machine.shed("exec", "dev", "--", "sh", "-c", script)


def number(machine: Machine) -> int:
    """Return how far the process that counts has come."""
    return int(sh(machine, "cat /root/n"))


def count(machine: Machine) -> None:
    """Have a process count in the shed, and wait for its first words."""
    sh(machine, f"setsid sh -c '{COUNT}' >/dev/null 2>&1 </dev/null &")
    wait_until(lambda: machine.try_shed("exec", "dev", "--", "cat", "/root/n").returncode == 0)


def grows(machine: Machine) -> int:
    """Wait until the process that counts has come further, and return from where."""
    begin = number(machine)
    wait_until(lambda: number(machine) > begin)
    return begin


def processes(machine: Machine) -> set[str]:
    """Return the processes that work for the shed, but for the server's own."""
    found = {
        path.name
        for path in Path("/proc").iterdir()
        if path.name.isdigit() and works_for(path, machine.data / "instances")
    }
    return found - {str(machine.server_pid())}


@pytest.mark.parametrize("cold", [(), ("--cold", "--memory", "512M")], ids=["restored", "booted"])
def test_a_shed_sleeps_and_goes_on(machine: Machine, cold: tuple[str, ...]) -> None:
    """The same shed, with its processes and open files where they were, and the clock of now; once, and once more."""
    machine.shed("create", "dev", "--image", "busybox", *cold)
    count(machine)
    before = sh(machine, WHO)
    pid = machine.show("dev")["pid"]
    for _ in range(2):
        grows(machine)
        machine.shed("suspend", "dev")
        shown = machine.show("dev")
        assert (shown["status"], "pid" in shown) == ("suspended", False)
        assert ended(pid)
        assert not processes(machine)
        time.sleep(3)  # which its clock is to catch up
        assert machine.shed("exec", "dev", "--", "cat", "/root/n") != ""  # which wakes it
        asked = time.time()
        assert asked - 2 < int(sh(machine, "date +%s")) < time.time() + 1
        grows(machine)
        assert sh(machine, WHO) == before
        assert set(sh(machine, "tail -n 1 /root/log; ls /root").split()[1:]) - {"n.new"} == {"log", "n"}
        shown = machine.show("dev")
        assert shown["status"] == "running"
        pid = shown["pid"]
        assert not [path.name for path in (machine.data / "instances/dev").iterdir() if "memory" in path.name]
    machine.shed("suspend", "dev")
    machine.shed("server", "stop")
    assert "resumed dev" in machine.shed("resume", "dev")
    grows(machine)


def test_a_connection_to_a_published_port_wakes_it(machine: Machine) -> None:
    """Also when the server was started anew meanwhile."""
    machine.shed("create", "dev", "--image", "busybox", "-p", "7000")
    machine.shed("exec", "dev", "--", "sh", "-c", f"{PYTHON} </dev/null >/dev/null 2>&1 &", ECHO)
    (port,) = (int(text.split(":")[-2]) for text in machine.show("dev")["ports"])

    def echo() -> bytes:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(b"hello")
            return connection.recv(5)
        return b""

    wait_until(lambda: echo() == b"hello")
    machine.shed("suspend", "dev")
    assert echo() == b"hello"
    assert machine.show("dev")["status"] == "running"
    machine.shed("suspend", "dev")
    machine.shed("server", "stop")
    machine.shed("server", "start")
    wait_until(lambda: echo() == b"hello")
    assert machine.show("dev")["status"] == "running"


def test_memory_of_another_disk_is_not_used(machine: Machine) -> None:
    """It is refused with the way out, and the disk boots."""
    machine.shed("create", "dev", "--image", "busybox")
    count(machine)
    machine.shed("suspend", "dev")
    os.utime(machine.data / "uppers/dev/upper.ext4")
    refused = machine.try_shed("exec", "dev", "--", "true")
    assert refused.returncode != 0
    assert b"shed start --no-memory dev" in refused.stderr
    assert machine.show("dev")["status"] == "suspended"
    machine.shed("start", "--no-memory", "dev")
    begin = number(machine)
    assert sh(machine, "ps | grep -c [/]root/log || true").strip() == "0"
    assert number(machine) == begin
    machine.shed("suspend", "dev")
    assert b"what ran there is gone" in machine.try_shed("stop", "dev").stderr
    assert machine.show("dev")["status"] == "stopped"


def test_rounds_leave_nothing(machine: Machine) -> None:
    """No process, no file and no descriptor of the server stays of some rounds; `SHED_TEST_ROUNDS` asks for more."""
    machine.shed("create", "dev", "--image", "busybox")
    count(machine)
    machine.shed("suspend", "dev")
    machine.shed("resume", "dev")
    server = machine.server_pid()

    def things() -> tuple[int, list[str], int]:
        files = sorted(str(path.relative_to(machine.data)) for path in (machine.data / "instances").rglob("*"))
        return len(processes(machine)), files, len(Path("/proc/mounts").read_text().splitlines())

    wait_until(lambda: number(machine) > 0)
    before, open_files = things(), len(list(Path(f"/proc/{server}/fd").iterdir()))
    for _ in range(int(os.environ.get("SHED_TEST_ROUNDS", "8"))):
        machine.shed("suspend", "dev")
        grows(machine)
    wait_until(lambda: things() == before)
    assert machine.server_pid() == server
    assert len(list(Path(f"/proc/{server}/fd").iterdir())) <= open_files + 3


STEPS = ("the shed stands still", "writing its memory", "ending the virtual machine")
"""What is printed when a step of a suspend begins; from the last one on it is suspended."""


def test_a_server_that_is_killed_meanwhile(machine: Machine) -> None:
    """The shed runs or is suspended, wherever that was, and goes on either way."""
    machine.shed("create", "dev", "--image", "busybox")
    count(machine)
    for says in STEPS:
        begin, server = grows(machine), machine.server_pid()
        with machine.start("suspend", "dev") as client:
            assert client.stderr is not None
            assert any(says.encode() in line for line in client.stderr), says + machine.consoles()
            os.kill(server, signal.SIGKILL)
            client.communicate(timeout=120)
        wait_until(lambda: machine.show("dev")["status"] in {"running", "suspended"})
        assert says != STEPS[-1] or machine.show("dev")["status"] == "suspended"
        assert number(machine) >= begin
        grows(machine)
