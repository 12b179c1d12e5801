"""What every backend has to do, tried through `shed.backends.interface` alone.

Each function takes a `Bench`: a backend, machines to start with it, and what its guests can do.  The fake backend and
QEMU are run through the same ones.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from shed.backends.base import Connection, Disk, Liveness, Machine
from shed.backends.interface import Backend
from shed.errors import BackendError, ConflictError

HELLO_SECONDS = 120.0


@dataclass(frozen=True)
class Bench:
    """A backend to try.  `again` makes another one of the same folders, as the next server does."""

    backend: Backend
    again: Callable[[], Backend]
    machine: Callable[[str], Machine]
    """Describes a machine, ready to be started, in a folder of its own."""

    async def up(self, name: str) -> tuple[Machine, Connection]:
        """Start a machine and return it, at hello."""
        machine = self.machine(name)
        await self.backend.start(machine)
        return machine, await self.backend.connect(machine.state_dir, timeout=HELLO_SECONDS)


Try = Callable[[Bench], Awaitable[None]]


async def a_vm_outlives_its_server(bench: Bench) -> None:
    """The next server finds it by its record, links to it, and ends it; it cannot be started twice."""
    machine, link = await bench.up("one")
    folder, successor = machine.state_dir, bench.again()
    with pytest.raises(ConflictError) as caught:
        await bench.backend.start(machine)
    assert caught.value.code == "SHED_ALREADY_RUNNING"
    await link.close()
    assert successor.liveness(folder) is Liveness.OURS
    assert successor.pid(folder) == bench.backend.pid(folder) is not None
    assert not await successor.half_started(folder)
    assert not await successor.wait_exit(folder, timeout=0.1)
    link = await successor.connect(folder, timeout=HELLO_SECONDS)
    assert link.hello
    await successor.kill(folder)
    await asyncio.wait_for(link.wait_closed(), HELLO_SECONDS)
    await link.close()
    assert bench.backend.liveness(folder) is Liveness.NOT_OURS
    assert bench.backend.pid(folder) is None


async def an_end_that_nobody_asked_for_is_noticed(bench: Bench) -> None:
    """The link closes, whoever waits for the exit is woken, and connecting says that the VM has ended."""
    machine, link = await bench.up("one")
    pid = bench.backend.pid(machine.state_dir)
    assert pid is not None
    waiting = asyncio.create_task(bench.backend.wait_exit(machine.state_dir, timeout=HELLO_SECONDS))
    os.kill(pid, signal.SIGKILL)
    assert await waiting
    await asyncio.wait_for(link.wait_closed(), HELLO_SECONDS)
    await link.close()
    assert bench.backend.liveness(machine.state_dir) is Liveness.NOT_OURS
    with pytest.raises(BackendError) as caught:
        await bench.backend.connect(machine.state_dir, timeout=HELLO_SECONDS)
    assert caught.value.code == "VM_EXITED"


async def nothing_is_left_of_a_start_that_failed(bench: Bench) -> None:
    """A disk that is not there: an error, no record, no process; and with the disk, the machine starts."""
    machine = bench.machine("one")
    broken = replace(machine, disks=(Disk(Path("/nowhere/disk"), read_only=False), *machine.disks[1:]))
    with pytest.raises(BackendError) as caught:
        await bench.backend.start(broken)
    assert caught.value.code == "VM_START_FAILED"
    assert bench.backend.liveness(machine.state_dir) is Liveness.NOT_OURS
    assert bench.backend.pid(machine.state_dir) is None
    await bench.backend.start(machine)
    assert bench.backend.liveness(machine.state_dir) is Liveness.OURS


async def an_empty_folder_is_no_vm(bench: Bench) -> None:
    """Nothing runs there, nothing is waited for, and ending it, twice, is no error."""
    folder = bench.machine("one").state_dir
    assert bench.backend.liveness(folder) is Liveness.NOT_OURS
    assert bench.backend.pid(folder) is None
    assert await bench.backend.wait_exit(folder, timeout=HELLO_SECONDS)
    await bench.backend.kill(folder)
    await bench.backend.kill(folder)


async def a_hello_that_does_not_come_has_a_limit(bench: Bench) -> None:
    """It is an error with a code of its own, and the VM goes on."""
    machine = bench.machine("one")
    await bench.backend.start(machine)
    with pytest.raises(BackendError) as caught:
        await bench.backend.connect(machine.state_dir, timeout=0.01)
    assert caught.value.code == "AGENT_TIMEOUT"
    assert bench.backend.liveness(machine.state_dir) is Liveness.OURS


async def no_template_is_found_before_one_is_made(bench: Bench) -> None:
    """A backend that saves machines has none to begin with, and nothing is being made."""
    templates = bench.backend.capabilities.templates
    if templates is None:
        assert bench.backend.capabilities.spares is None  # they are restored from templates
        return
    await templates.sweep()
    assert templates.find(bench.machine("one")) is None
    assert (dict(templates.being_made()), list(templates.stored())) == ({}, [])


async def a_vm_with_room_on_its_disk_is_not_paused(bench: Bench) -> None:
    """Asking it to go on is no error either."""
    full_disk = bench.backend.capabilities.full_disk
    if full_disk is None:
        return
    machine, link = await bench.up("one")
    assert not await full_disk.is_paused(machine.state_dir, resume=False)
    assert not await full_disk.is_paused(machine.state_dir, resume=True)
    await link.close()


EVERY: tuple[Try, ...] = (
    a_vm_outlives_its_server,
    an_end_that_nobody_asked_for_is_noticed,
    nothing_is_left_of_a_start_that_failed,
    an_empty_folder_is_no_vm,
    a_hello_that_does_not_come_has_a_limit,
    no_template_is_found_before_one_is_made,
    a_vm_with_room_on_its_disk_is_not_paused,
)
