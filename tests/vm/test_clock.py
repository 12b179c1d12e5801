"""The guests' clocks: right, as fast as ours, and set right again after the guest stood still."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.backends.qemu.monitor import connected
from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.vms.machine import Machine, command_line
from support.vms.templates import EITHER, WARM

pytestmark = [pytest.mark.vm, pytest.mark.slow]
_ERROR = 0.05
"""Seconds by which a clock may be wrong."""
_ASLEEP = 3.0


class Clock:
    """A command in a shed that says what time it is there when it is asked."""

    def __init__(self, machine: Machine, name: str) -> None:
        words = [
            sys.executable,
            "-m",
            "shed.cli.main",
            "exec",
            name,
            "--",
            "sh",
            "-c",
            "while read line; do date +%s.%N; done",
        ]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=machine.environment)

    def __enter__(self) -> "Clock":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def read(self) -> tuple[float, float, float]:
        """Return our time when it was asked, its answer, and our time when that came."""
        assert self._process.stdin
        assert self._process.stdout
        before = time.time()
        self._process.stdin.write(b"?\n")
        self._process.stdin.flush()
        return before, float(self._process.stdout.readline()), time.time()

    def error(self) -> float:
        """Return by how much it is surely wrong, in seconds, as the quickest of its answers shows."""
        before, answer, after = min((self.read() for _ in range(10)), key=lambda reading: reading[2] - reading[0])
        return max(before - answer, answer - after, 0.0)

    def is_right(self) -> bool:
        """Tell whether it is as right as the server could make it: what may be right, for as long as answers take now,
        it left alone.
        """
        slowest = max(after - before for before, _, after in (self.read() for _ in range(10)))
        return self.error() < max(_ERROR, slowest)


@pytest.fixture(scope="module")
def machine(base_store: LayoutStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine whose VMs are restored, unless a test has them booted."""
    root = tmp_path_factory.mktemp("clock")
    copy_store(base_store, root / "data/images")
    machine = Machine(root, way=WARM)
    machine.way = EITHER
    yield machine
    machine.end()


@pytest.mark.parametrize(("name", "options"), [("restored", []), ("booted", ["--cold"])])
def test_it_is_right_and_runs_as_fast_as_ours(machine: Machine, name: str, options: list[str]) -> None:
    """A kernel that has found out by itself how fast its counter is can be wrong by a factor; ours is told."""
    machine.shed("create", name, "--image", "base", *options)
    assert "tsc_early_khz=" in machine.shed("exec", name, "--", "cat", "/proc/cmdline")
    with Clock(machine, name) as clock:
        assert clock.is_right()
        first = clock.read()
        time.sleep(2)
        last = clock.read()
        assert (last[0] - first[2]) * 0.98 < last[1] - first[1] < (last[2] - first[0]) * 1.02
        assert clock.is_right()
    machine.shed("delete", "--force", name)


async def test_it_is_set_when_a_server_finds_the_shed(machine: Machine) -> None:
    """Such as after the host slept: the guest's clock stands still meanwhile."""
    machine.shed("create", "dev", "--image", "base")
    async with connected(machine.data / "instances/dev") as monitor:
        await monitor.execute("stop")
        await asyncio.sleep(_ASLEEP)
        await monitor.execute("cont")
    with Clock(machine, "dev") as clock:
        assert clock.error() > _ASLEEP / 2
        server = machine.server_pid()
    os.kill(server, signal.SIGKILL)
    while command_line(Path(f"/proc/{server}")):
        time.sleep(0.01)
    with Clock(machine, "dev") as clock:
        assert clock.is_right()
    machine.shed("delete", "--force", "dev")
