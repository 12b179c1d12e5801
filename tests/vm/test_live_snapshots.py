"""Snapshots of sheds that run, and sheds that go on from them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from shed.errors import StorageError
from shed.oci.store import LayoutStore
from support.images.kit import copy_store, image_store
from support.vms.lab import Lab, run, vm_test
from support.vms.machine import Machine
from support.vms.templates import EITHER
from support.waiting import wait_until

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

COUNT = "i=0; while :; do i=$((i+1)); echo $i >/root/n.new; mv /root/n.new /root/n; sleep 0.05; done"
KILLED = 4
ROUNDS = 20
WRITER = """
import os, sqlite3
base = sqlite3.connect('/tmp/base')
base.execute('pragma journal_mode=wal')
base.execute('create table if not exists t (n integer primary key, text blob)')
n = 0
while True:
    n += 1
    base.execute('insert into t values (?, ?)', (n, os.urandom(3000)))
    base.commit()
    with open('/tmp/done.new', 'w') as file:
        file.write(str(n))
    os.rename('/tmp/done.new', '/tmp/done')
"""
READER = """
import sqlite3
base = sqlite3.connect('/tmp/base')
(found,) = base.execute('pragma integrity_check').fetchone()
print(found, *base.execute('select count(*), max(n) from t').fetchone())
"""


@pytest.fixture
def machine(small_store: LayoutStore, tmp_path: Path) -> Iterator[Machine]:
    """A machine with the image busybox, whose VMs come up either way."""
    copy_store(small_store, tmp_path / "data/images")
    machine = Machine(tmp_path, way="warm")
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
        assert machine.shed("exec", name, "--", "sh", "-c", "ls /root; cat /root/hook").split() == [
            "before",
            "hook",
            "n",
            name,
        ]
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
    assert machine.shed("exec", "three", "--", "sh", "-c", "ls /root").split() == ["before", "n"]
    refused = machine.try_shed("create", "four", "--from-snapshot", "now", "--cpus", "1")
    assert b"--no-memory" in refused.stderr
    machine.shed("snapshot", "rm", "now")
    grows(machine, "one")
    machine.shed("restart", "one")
    assert machine.shed("exec", "one", "--", "sh", "-c", "hostname") == "one\n"


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


def test_connections_are_cut(machine: Machine) -> None:
    """Those that lead out, at once, in the fork; those within it, and all in the shed itself, go on."""
    machine.shed("create", "dev", "--image", "busybox", "--egress", "offline")
    listen = "nc -lk -p 7000 -e cat >/dev/null 2>&1 </dev/null &"
    machine.shed("exec", "dev", "--", "sh", "-c", listen)
    for name, address in (("outside", "10.0.2.15"), ("inside", "127.0.0.1")):
        talk = f"mkfifo /{name}; (nc {address} 7000 </{name}; echo over >/{name}.over) & sleep 1000 >/{name}"
        machine.shed("exec", "dev", "--", "sh", "-c", f"setsid sh -c '{talk}' >/dev/null 2>&1 </dev/null &")
    both = "netstat -tn | grep -c ':7000 .*ESTABLISHED'"
    wait_until(lambda: machine.try_shed("exec", "dev", "--", "sh", "-c", both).stdout == b"4\n")
    machine.shed("fork", "dev", "one")
    wait_until(lambda: machine.try_shed("exec", "one", "--", "cat", "/outside.over").returncode == 0)
    assert machine.try_shed("exec", "one", "--", "sh", "-c", both).stdout == b"2\n"
    assert machine.try_shed("exec", "dev", "--", "sh", "-c", both).stdout == b"4\n"


def test_a_server_that_is_killed_leaves_the_shed_running(machine: Machine) -> None:
    """Whenever that is while a snapshot is made: the next server has the shed go on, lists no half, and makes one."""
    machine.shed("create", "dev", "--image", "busybox")
    count(machine, "dev")
    for turn in range(KILLED):
        making = machine.start("snapshot", "create", "dev", "half")
        assert making.stderr is not None
        for _ in range(turn + 1):  # the steps that are told are the moments
            making.stderr.readline()
        os.kill(machine.server_pid(), signal.SIGKILL)
        making.communicate()
        grows(machine, "dev")
        if machine.try_shed("snapshot", "info", "half").returncode == 0:
            machine.shed("snapshot", "rm", "half")
        assert machine.shed("snapshot", "ls") == ""
    machine.shed("snapshot", "create", "dev", "whole")
    machine.shed("create", "one", "--from-snapshot", "whole")
    grows(machine, "one")


def test_a_database_under_load(tmp_path: Path) -> None:
    """Whenever it is kept, what goes on from that is whole and has all that was committed before."""
    copy_store(image_store("base"), tmp_path / "data/images")
    machine = Machine(tmp_path, way="warm")
    machine.way = EITHER
    try:
        machine.shed("create", "dev", "--image", "base")
        machine.shed("exec", "dev", "--", "sh", "-c", "cat >/tmp/writer.py", stdin=WRITER.encode())
        machine.shed("exec", "dev", "--", "sh", "-c", "setsid python3 /tmp/writer.py >/tmp/log 2>&1 </dev/null &")
        wait_until(lambda: machine.try_shed("exec", "dev", "--", "cat", "/tmp/done").returncode == 0)
        for turn in range(ROUNDS):
            before = int(machine.shed("exec", "dev", "--", "cat", "/tmp/done"))
            machine.shed("snapshot", "create", "dev", "now")
            how = () if turn % 4 else ("--no-memory",)
            machine.shed("create", "one", "--from-snapshot", "now", *how)
            found, rows, last = machine.shed("exec", "one", "--", "python3", "-c", READER).split()
            assert (found, rows) == ("ok", last)
            assert int(rows) >= before
            machine.shed("delete", "--force", "one")
            machine.shed("snapshot", "rm", "now")
        after = int(machine.shed("exec", "dev", "--", "cat", "/tmp/done"))
        wait_until(lambda: int(machine.shed("exec", "dev", "--", "cat", "/tmp/done")) > after)
    finally:
        machine.end()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_ends_the_copy_alone(small_store: LayoutStore, tmp_path: Path) -> None:
    """The machine runs on, and can be kept elsewhere."""
    lab = Lab(small_store, tmp_path, "warm")
    small = tmp_path / "small"
    small.mkdir()

    @contextlib.asynccontextmanager
    async def still() -> AsyncIterator[None]:
        yield

    async def work(lab: Lab) -> None:
        machine = lab.machine()
        link = await lab.ready(machine)
        moments = lab.backend.capabilities.moments
        assert moments is not None
        assert (await run(link, "dd", "if=/dev/urandom", "of=/big", "bs=1M", "count=32"))[0] == 0
        assert (await run(link, "sync"))[0] == 0
        with pytest.raises(StorageError) as caught:
            await moments.keep(machine, small / "disk", None, still, lambda done, whole: None)
        assert caught.value.code == "NO_SPACE"
        assert await run(link, "sh", "-c", "echo more >/more; sync; cat /more") == (0, b"more\n")
        (tmp_path / "memory").mkdir()
        await moments.keep(machine, tmp_path / "disk", tmp_path / "memory", still, lambda done, whole: None)
        assert (tmp_path / "disk").stat().st_blocks * 512 > 32 << 20
        assert await run(link, "cat", "/more") == (0, b"more\n")
        await link.close()

    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8M", "small", str(small)], check=True)
    try:
        vm_test(work, lab)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
