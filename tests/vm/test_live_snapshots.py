"""Snapshots of sheds that run, and sheds that go on from them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.registries.docker_registry import docker_registry, no_credentials
from support.vms.machine import Machine
from support.vms.templates import EITHER
from support.waiting import wait_until

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

COUNT = "i=0; while :; do i=$((i+1)); echo $i >/root/n.new; mv /root/n.new /root/n; sleep 0.05; done"


@pytest.fixture
def machine(small_store: LayoutStore, tmp_path: Path) -> Iterator[Machine]:
    """A machine with the image busybox, whose VMs come up either way."""
    yield from _machine(small_store, tmp_path)


@pytest.fixture
def another(small_store: LayoutStore, tmp_path: Path) -> Iterator[Machine]:
    """Another such machine."""
    yield from _machine(small_store, tmp_path / "another")


def _machine(store: LayoutStore, folder: Path) -> Iterator[Machine]:
    copy_store(store, folder / "data/images")
    machine = Machine(folder, way="warm")
    machine.way = EITHER
    yield machine
    machine.end()


def number(machine: Machine, name: str) -> int:
    """Return how far the process that counts has come in a shed."""
    return int(machine.shed("exec", name, "--", "cat", "/root/n"))


def count(machine: Machine, name: str) -> None:
    """Have a process count in a shed, and wait for its first words."""
    machine.shed("exec", name, "--", "sh", "-c", f"setsid sh -c '{COUNT}' >/dev/null 2>&1 </dev/null &")
    wait_until(lambda: machine.try_shed("exec", name, "--", "cat", "/root/n").returncode == 0)


def grows(machine: Machine, name: str) -> None:
    """Wait until the process that counts has come further."""
    begin = number(machine, name)
    wait_until(lambda: number(machine, name) > begin)


def files(machine: Machine, name: str) -> set[str]:
    """Return what is in the home folder of root, but for what the process that counts renames."""
    return set(machine.shed("exec", name, "--", "ls", "/root").split()) - {"n.new"}


@pytest.mark.parametrize("cold", [(), ("--cold", "--memory", "512M")], ids=["restored", "booted"])
def test_processes_go_on(machine: Machine, cold: tuple[str, ...]) -> None:
    """In the shed and in what goes on from it, with the files of that moment; hooks and the generation tell of it."""
    machine.shed("create", "dev", "--image", "busybox", *cold)
    count(machine, "dev")
    hook = "mkdir -p /etc/shed/forked.d; cd /etc/shed/forked.d; echo before >/root/before"
    hook += "; printf '#!/bin/sh\nhostname >/root/hook\n' >10-tell; printf '#!/bin/sh\nexit 3\n' >20-bad; chmod 755 *"
    machine.shed("exec", "dev", "--", "sh", "-c", hook)
    machine.shed("snapshot", "create", "dev", "now")
    grows(machine, "dev")
    machine.shed("exec", "dev", "--", "sh", "-c", "echo after >/root/after; rm /root/before")
    wait_until(lambda: number(machine, "dev") > 40)
    for name in ("one", "two"):
        made = machine.try_shed("create", name, "--from-snapshot", "now")
        assert made.returncode == 0, made.stderr.decode() + machine.consoles()
        assert b"20-bad failed with status 3" in made.stderr
        grows(machine, name)
        assert files(machine, name) == {"before", "hook", "n"}
        assert machine.shed("exec", name, "--", "cat", "/root/hook") == f"{name}\n"
    sheds = ("dev", "one", "two")
    for script in (
        "hostname",
        "cat /etc/hostname",
        "cat /etc/machine-id",
        "cat /sys/class/net/eth0/address",
        "cat /run/shed/generation",
    ):
        assert len({machine.shed("exec", name, "--", "sh", "-c", script) for name in sheds}) == 3, script
    machine.shed("create", "three", "--from-snapshot", "now", "--no-memory")
    assert files(machine, "three") == {"before", "n"}
    refused = machine.try_shed("create", "four", "--from-snapshot", "now", "--cpus", "1")
    assert b"--no-memory" in refused.stderr
    machine.shed("snapshot", "rm", "now")
    grows(machine, "one")
    machine.shed("restart", "one")
    assert machine.shed("exec", "one", "--", "sh", "-c", "hostname") == "one\n"


def test_a_shed_goes_back_where_it_was(machine: Machine) -> None:
    """In place, while it runs: its processes and files are those of that moment, and it is still who it is."""
    machine.shed("create", "dev", "--image", "busybox")
    count(machine, "dev")
    who = "hostname; cat /etc/machine-id /sys/class/net/eth0/address"
    before = machine.shed("exec", "dev", "--", "sh", "-c", who)
    machine.shed("snapshot", "create", "dev", "now")
    machine.shed("exec", "dev", "--", "sh", "-c", "echo after >/root/after")
    wait_until(lambda: number(machine, "dev") > 100)
    later = number(machine, "dev")
    assert "it runs" in machine.shed("rollback", "dev")
    assert number(machine, "dev") < later
    grows(machine, "dev")
    assert files(machine, "dev") == {"n"}
    assert machine.shed("exec", "dev", "--", "sh", "-c", who) == before
    machine.shed("rollback", "dev", "dev-1", "--discard")
    assert number(machine, "dev") >= later
    grows(machine, "dev")
    assert machine.shed("exec", "dev", "--", "cat", "/root/after") == "after\n"
    machine.shed("restart", "dev")
    assert machine.shed("exec", "dev", "--", "sh", "-c", who) == before


def test_memory_travels(machine: Machine, another: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To another machine, when it is asked for at both ends: the process goes on there.  Else the disk alone goes."""
    no_credentials(monkeypatch, tmp_path)
    machine.shed("create", "dev", "--image", "busybox", "--upper-size", "1G", "--memory", "512M")
    count(machine, "dev")
    machine.shed("snapshot", "create", "dev", "now")
    with docker_registry(tmp_path / "registry") as registry:
        reference = f"{registry.address}/me/dev:now"
        machine.shed("snapshot", "push", "now", reference)
        refused = another.try_shed("snapshot", "pull", reference, "none", "--with-memory")
        assert b"has no memory" in refused.stderr
        machine.shed("snapshot", "push", "now", reference, "--with-memory")
        another.shed("snapshot", "pull", reference, "disk")
        another.shed("snapshot", "pull", reference, "all", "--with-memory")
    for name, size in (("disk", 0), ("all", 512)):
        assert json.loads(another.shed("snapshot", "info", name, "--json"))["memory_mb"] == size
    wait_until(lambda: number(machine, "dev") > 60)
    for name in ("one", "two"):
        another.shed("create", name, "--from-snapshot", "all")
        grows(another, name)
    memory = another.data / "snapshots/all/memory/memory"
    memory.chmod(0o600)
    with memory.open("r+b") as file:
        file.write(b"x")
    refused = another.try_shed("create", "three", "--from-snapshot", "all")
    assert b"it was written to, or copied" in refused.stderr


def test_forks_are_somebody_else_each(machine: Machine) -> None:
    """Eight at once, which came from the same memory, share no random number."""
    machine.shed("create", "dev", "--image", "busybox")
    count(machine, "dev")
    machine.shed("fork", "dev", "fork", "--count", "8")
    forks = [f"fork-{index}" for index in range(1, 9)]
    for script in ("head -c 16 /dev/urandom | md5sum", "cat /proc/sys/kernel/random/uuid", "cat /etc/machine-id"):
        assert len({machine.shed("exec", name, "--", "sh", "-c", script) for name in ("dev", *forks)}) == 9, script
    assert list((machine.data / "snapshots").iterdir()) == []
    for name in ("dev", *forks):
        grows(machine, name)


def test_a_prebuild(machine: Machine) -> None:
    """What its commands have started goes on in each shed that is made from it; it is built anew beside them."""
    start = (
        f"mkdir -p /root; setsid sh -c '{COUNT}' >/dev/null 2>&1 </dev/null & until test -e /root/n; do sleep 0.1; done"
    )
    options = ("--image", "busybox", "--memory", "512M", "-e", "WHO=web")
    machine.shed("prebuild", "create", "web", *options, "--run", start, "--run", 'echo "$WHO" >/root/who')
    assert machine.shed("list", "-q") == ""
    for name in ("one", "two"):
        machine.shed("create", name, "--prebuild", "web")
        grows(machine, name)
        assert (
            machine.shed("exec", name, "--", "sh", "-c", "cat /root/who /etc/hostname; echo $WHO")
            == f"web\n{name}\nweb\n"
        )
    machine.shed("prebuild", "build", "web")
    grows(machine, "one")
    machine.shed("prebuild", "rm", "web")
    assert machine.shed("snapshot", "ls", "--json").strip() == "[]"


STEPS = {
    "the disk": "copying the writable layer",
    "the stop": "the shed stands still",
    "the memory": "its memory is put in order",
}
"""What is printed when a step of a snapshot begins."""


@pytest.mark.parametrize("victim", ["server", "vm"])
def test_a_kill_at_each_step(machine: Machine, victim: str) -> None:
    """A server that is killed while it keeps a shed leaves that running; a VM, a stopped one.  Nothing half-made is
    listed or stays, and the next snapshot is whole.
    """
    machine.shed("create", "dev", "--image", "busybox", "--cold", "--memory", "512M")
    count(machine, "dev")
    for step, says in list(STEPS.items())[victim == "vm" :]:
        pid = machine.show("dev")["pid"] if victim == "vm" else machine.server_pid()
        with machine.start("snapshot", "create", "dev", "now") as making:
            assert making.stderr is not None
            for line in making.stderr:
                if says.encode() in line:
                    break
            else:
                pytest.fail(f"{step}: {machine.consoles()}")
            os.kill(pid, signal.SIGKILL)
            making.communicate(timeout=120)
            kept = making.returncode == 0
        assert not kept or step == "the memory"  # by then a VM is not needed any more, nor the server for much longer
        listed = [each["name"] for each in json.loads(machine.shed("snapshot", "ls", "--json"))]
        assert listed == (["now"] if kept else [])
        if victim == "vm":
            wait_until(lambda: machine.show("dev")["status"] == "stopped")
            machine.shed("start", "dev", "--cold")
            count(machine, "dev")
        else:
            grows(machine, "dev")
        machine.try_shed("snapshot", "rm", "now")
        machine.shed("snapshot", "create", "dev", "again")
        folder = machine.data / "snapshots"
        wait_until(lambda folder=folder: [path.name for path in folder.iterdir()] == ["again"])  # type: ignore[misc]
        machine.shed("snapshot", "rm", "again")
    machine.shed("snapshot", "create", "dev", "last")
    machine.shed("create", "child", "--from-snapshot", "last")
    assert machine.shed("exec", "child", "--", "cat", "/etc/hostname") == "child\n"
