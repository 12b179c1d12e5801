"""What QEMU offers beyond running VMs: saving and restoring them, spares, and pauses while the host's disk is full."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from shed.backends.base import Machine
from shed.backends.interface import Prepare, StoredTemplate, Template
from shed.backends.qemu import command, confined, process, saving
from shed.backends.qemu.machines import ANSWER_TIMEOUT, START_TIMEOUT, Machines, Saved, came_up, telling
from shed.backends.qemu.templates import MEMORY, STATE, TemplateStore
from shed.errors import BackendError, ConflictError
from shed.threads import in_thread, stoppable

_HANG_UP = 0.2
"""Seconds until the agent has seen the host hang up, and waits for the next one."""
_SCRATCH = "scratch"
"""A file beside a spare; see `shed.backends.qemu.saving.exchange`."""


class QemuTemplates:
    """Saves VMs and restores others from them; see `shed.backends.interface.Templates`."""

    def __init__(self, machines: Machines, store: TemplateStore) -> None:
        self._machines = machines
        self._store = store

    def find(self, machine: Machine) -> Template | None:
        """Return what `machine` can be restored from, checked."""
        return self._store.find(machine, self._machines.host(machine))

    async def make(self, machine: Machine, prepare: Prepare, *, timeout: float) -> Template:
        """Boot a VM like `machine` and save it at hello."""
        host = await asyncio.to_thread(self._machines.host, machine)
        with self._store.lock():
            await self._sweep()
            plan = self._store.begin(machine, host)
            try:
                await self._save(plan, replace(host, memory=plan.state_dir / MEMORY), prepare, timeout=timeout)
                return await asyncio.to_thread(self._store.publish, plan, host)
            finally:
                await self._sweep()

    async def _save(self, plan: Machine, host: command.Host, prepare: Prepare, *, timeout: float) -> None:
        hold = self._machines.holding(plan, host, template=True)
        record = await stoppable(partial(confined.start, plan, host, hold))
        await came_up(plan.state_dir, record, None)
        await _prepare(self._machines, plan, prepare, timeout=timeout)
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await saving.save(plan.state_dir, plan.state_dir / STATE, command.disk_names(plan)[:-1])
        except (TimeoutError, saving.MonitorError) as error:
            raise BackendError(
                f"the machine could not be saved: {str(error) or 'it takes too long'}", code="NOT_SAVED"
            ) from error
        await self._machines.kill(plan.state_dir)

    async def restore(self, machine: Machine, template: Template) -> tuple[str, ...]:
        """Start `machine` from `template`."""
        return await self._machines.start_from(machine, Saved(template.path / MEMORY, template.path / STATE))

    def is_whole(self, template: Template) -> bool:
        """Tell whether `template` is what was saved, to the last byte."""
        return self._store.is_whole(template)

    def drop(self, template: Template) -> None:
        """Never restore from `template` again."""
        self._store.drop(template)

    async def sweep(self) -> None:
        """Remove what is left of a template whose maker was killed."""
        with contextlib.suppress(ConflictError), self._store.lock():
            await self._sweep()

    async def _sweep(self) -> None:
        for folder in self._store.unfinished():
            await self._machines.kill(folder)
            await asyncio.to_thread(shutil.rmtree, folder)

    def being_made(self) -> Mapping[Path, int]:
        """Return the state folders of VMs that are being saved, with their MiB."""
        return self._store.unfinished()

    def stored(self) -> Iterator[StoredTemplate]:
        """Return every template on the disk, and what removals that were cut short have left."""
        found = shutil.which(self._machines.program)
        return self._store.stored(None if found is None else Path(found))


class QemuSpares:
    """Keeps restored VMs paused; see `shed.backends.interface.Spares`."""

    def __init__(self, machines: Machines, templates: QemuTemplates) -> None:
        self._machines = machines
        self._templates = templates

    async def make(self, machine: Machine, template: Template, prepare: Prepare, *, timeout: float) -> None:
        """Restore `machine`, have `prepare` ready its agent, and pause it."""
        (machine.state_dir / _SCRATCH).touch(mode=0o600)
        await self._templates.restore(machine, template)
        try:
            await _prepare(self._machines, machine, prepare, timeout=timeout)
            async with telling(machine.name, START_TIMEOUT):
                await saving.pause(machine.state_dir)
        except BaseException:
            await self._machines.kill(machine.state_dir)
            raise

    async def claim(self, spare: Machine, machine: Machine) -> None:
        """Make the VM of `spare` that of `machine`.

        It goes on before it changes its folder: who finds it in the new one, after we were killed, can configure it.
        """
        own = dict(list(zip(command.disk_names(machine), machine.disks, strict=True))[:-1])
        try:
            async with telling(machine.name, ANSWER_TIMEOUT):
                await saving.exchange(spare.state_dir, own, spare.state_dir / _SCRATCH)
            async with telling(machine.name, None):
                await in_thread(process.move, spare.state_dir, machine.state_dir, machine.name)
        except BaseException:
            for folder in (spare.state_dir, machine.state_dir):
                with contextlib.suppress(BackendError):
                    await self._machines.kill(folder)
            raise


async def _prepare(machines: Machines, machine: Machine, prepare: Prepare, *, timeout: float) -> None:
    """Have `prepare` do its work with the agent of `machine`, and let that see the host hang up."""
    link = await machines.connect(machine.state_dir, timeout=timeout)
    try:
        await prepare(link)
    finally:
        await link.close()
    await asyncio.sleep(_HANG_UP)


class QemuFullDisk:
    """Pauses a VM while the host's disk is full (``werror=stop``); see `shed.backends.interface.FullDisk`."""

    async def is_paused(self, state_dir: Path, *, resume: bool) -> bool:
        """Tell whether the VM is paused because the host's disk was full; with `resume`, have it try again."""
        async with telling(state_dir.name, ANSWER_TIMEOUT):
            return await saving.waits_for_room(state_dir, go_on=resume)


class QemuGrowing:
    """Makes a disk of a running VM longer; see `shed.backends.interface.Growing`."""

    async def grow(self, state_dir: Path, disk: int, size: int) -> None:
        """Tell the VM that its disk of this index has `size` bytes now."""
        async with telling(state_dir.name, ANSWER_TIMEOUT):
            await saving.resize(state_dir, command.DISK_NAMES[disk], size)
