"""Snapshots, rollbacks and removals in any order, against a model of what the shed must be."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.vms.machine import Machine, works_for
from support.vms.templates import EITHER
from support.waiting import wait_until

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(1800)]

COUNT = "i=0; while :; do i=$((i+1)); echo $i >/dev/shm/n.new; mv /dev/shm/n.new /dev/shm/n; sleep 0.05; done"


@pytest.fixture
def machine(small_store: LayoutStore, tmp_path: Path) -> Iterator[Machine]:
    """A machine with a shed in which a process counts; its VMs come up either way."""
    copy_store(small_store, tmp_path / "data/images")
    machine = Machine(tmp_path, way="warm")
    machine.way = EITHER
    machine.shed("create", "dev", "--image", "busybox", "--cold", "--memory", "512M")
    machine.shed("exec", "dev", "--", "sh", "-c", f"setsid sh -c '{COUNT}' >/dev/null 2>&1 </dev/null &")
    wait_until(lambda: machine.try_shed("exec", "dev", "--", "cat", "/dev/shm/n").returncode == 0)
    yield machine
    machine.end()


@dataclass(frozen=True)
class Moment:
    """What a shed is: a word in a file on its disk, one in its memory, and how far its process has come, at least."""

    disk: str
    memory: str
    count: int


def now(machine: Machine) -> Moment:
    """Return what the shed is."""
    script = "cat /root/word 2>/dev/null || echo -; cat /dev/shm/word 2>/dev/null || echo -; cat /dev/shm/n"
    disk, memory, count = machine.shed("exec", "dev", "--", "sh", "-c", script).split()
    return Moment(disk, memory, int(count))


def test_any_order_of_snapshots_and_rollbacks(machine: Machine) -> None:
    """After each step the shed is what it was at that moment, and goes on; a prune in between takes nothing of it.

    `SHED_TEST_ROUNDS` asks for more.
    """
    seed = random.randrange(1 << 32)
    choose = random.Random(seed)
    kept: dict[str, Moment] = {}
    for number in range(int(os.environ.get("SHED_TEST_ROUNDS", "3"))):
        word = f"{number}-{choose.random()}"
        machine.shed("exec", "dev", "--", "sh", "-c", f"echo {word} | tee /root/word >/dev/shm/word")
        before = now(machine)
        assert (before.disk, before.memory) == (word, word), seed
        kept[f"s{number}"] = before
        machine.shed("snapshot", "create", "dev", f"s{number}")
        if choose.random() < 0.5 and len(kept) > 1:
            del kept[gone := choose.choice(list(kept))]
            machine.shed("snapshot", "rm", gone)
        if choose.random() < 0.3:
            machine.shed("system", "prune", "--until", "1ms", "--force")
        name, then = choose.choice(list(kept.items()))
        machine.shed("rollback", "dev", name, "--discard")
        found = now(machine)
        assert (found.disk, found.memory) == (then.disk, then.memory), (seed, name)
        assert found.count >= then.count, (seed, name)
        wait_until(lambda: now(machine).count > found.count)  # noqa: B023
    listed = machine.shed("snapshot", "ls")
    assert all(name in listed for name in kept), seed


def test_a_boot_of_the_host_while_it_is_suspended(machine: Machine) -> None:
    """No process and nothing in the folder of sockets is left, and the shed goes on where it was."""
    before = now(machine)
    machine.shed("suspend", "dev")
    server = machine.server_pid()
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and (path.name == str(server) or works_for(path, machine.data)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(path.name), signal.SIGKILL)
    shutil.rmtree(machine.environment["SHED_RUNTIME_DIR"])
    assert machine.show("dev")["status"] == "suspended"
    after = now(machine)
    assert after.count >= before.count
    wait_until(lambda: now(machine).count > after.count)
