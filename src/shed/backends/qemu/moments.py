"""Moments on disk: the memory of a running machine, from which others go on.

::

    memory          mapped by every machine that goes on from it, copied on write
    state           all else of the machine
    moment.json     what has to be the same for a machine that goes on from it
    memory.here     what tells whether somebody has written to the memory

The memory goes into a stream while the machine stands still, and is taken out of that afterwards; see
`shed.backends.qemu.stream`.  So all that go on from it share one file.

A machine that is suspended goes on once, so its memory stays in the stream (``state``), and is its own when it is read:
a page of a file that is a hole costs more when the machine is suspended again than reading all that is none.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from shed.backends.base import Machine
from shed.backends.interface import OF_THIS_HOST, Shape
from shed.backends.qemu import accel, command, keeping, process
from shed.backends.qemu.machines import Machines, Saved
from shed.backends.qemu.monitor import MonitorError
from shed.backends.qemu.stream import StreamError, split
from shed.backends.qemu.templates import MEMORY, STATE, digest_of, fingerprint, identity
from shed.errors import BackendError, UnavailableError
from shed.fsutil import atomic_write, fsync_dir, storage_errors
from shed.threads import in_thread

RECORD = "moment.json"
HERE = f"{MEMORY}{OF_THIS_HOST}"
_Check = Callable[[dict[str, Any], Path, Machine], None]
_MOST_RECORD = 1 << 20
_STREAM = "stream"
_NOTICES = 0.2
"""Seconds for a guest that goes on to notice that the host has hung up.  Who connects before that is not noticed, and
has to do it again, 0.6 seconds later: see `shed.backends.mux.connect`.
"""


class QemuMoments:
    """Keeps what a running VM is, and starts others from it; see `shed.backends.interface.Moments`."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines

    def shape(self, state_dir: Path) -> Shape:
        """Return the shape of the VM that runs, which is what it was started with."""
        words = self._words(state_dir)
        memory = _option(words, "-m")
        try:
            return Shape(int(_option(words, "-smp")), int(memory.removesuffix("M")))
        except ValueError:
            raise _unlike(f"its QEMU was started by another version of shed ({memory or 'no'} memory)") from None

    async def keep(
        self, machine: Machine, disk: Path, memory: Path | None, still: keeping.Still, tell: keeping.Tell
    ) -> None:
        """Make `disk` and, if it is given, the folder `memory` what `machine` is at one moment."""
        stream = None if memory is None else memory / _STREAM
        shape = await in_thread(self.shape, machine.state_dir)
        host = await in_thread(self._host, machine)
        with storage_errors(disk.parent):
            try:
                await keeping.keep(machine.state_dir, machine.disks[0].path, disk, stream, still=still, tell=tell)
            except (MonitorError, process.BrokenRecordError) as error:
                raise _not_kept(machine, error) from error
            if stream is not None:
                machine = replace(machine, cpus=shape.cpus, memory_mb=shape.memory_mb)
                await in_thread(_publish, stream, machine, host)

    async def suspend(self, machine: Machine, memory: Path, commit: Callable[[], None]) -> None:
        """Put what is in the memory of `machine` into the folder `memory`; it stands still afterwards."""
        host, state = await in_thread(self._host, machine), memory / STATE

        def finish() -> None:
            for path in (state, machine.disks[0].path):
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            state.chmod(0o400)
            _record(memory, machine, host, state_file=fingerprint(state), disk=fingerprint(machine.disks[0].path))
            commit()

        with storage_errors(memory):
            try:
                await keeping.suspend(machine.state_dir, state, lambda: in_thread(finish))
            except (MonitorError, process.BrokenRecordError) as error:
                raise _not_kept(machine, error) from error

    def _host(self, machine: Machine) -> command.Host:
        """Return what this host is to `machine`, which runs."""
        booted = not any(word.startswith("vmgenid") for word in self._words(machine.state_dir))
        return replace(self._machines.host(machine), as_booted=booted)

    def _words(self, state_dir: Path) -> list[str]:
        """Return the command line of the VM that runs, nothing when it is gone."""
        try:
            return Path(f"/proc/{self._machines.pid(state_dir)}/cmdline").read_text(errors="replace").split("\0")
        except OSError:
            return []

    async def check(self, machine: Machine, memory: Path) -> None:
        """Raise `UnavailableError` when `machine` cannot go on from `memory`."""
        host = await in_thread(self._machines.host, machine)
        await in_thread(_fits, machine, memory, host, _intact)

    async def go_on(self, machine: Machine, memory: Path) -> tuple[str, ...]:
        """Start `machine` from `memory`; its agent finds that the host has hung up."""
        warnings = await self._start(machine, memory / MEMORY, memory, _intact, None)
        await asyncio.sleep(_NOTICES)
        return warnings

    async def resume(self, machine: Machine, memory: Path, begins: Callable[[], None]) -> tuple[str, ...]:
        """Start the `machine` that was suspended from `memory`; its agent finds that the host has hung up."""
        return await self._start(machine, None, memory, _as_suspended, begins)

    async def _start(
        self, machine: Machine, pages: Path | None, memory: Path, check: _Check, begins: Callable[[], None] | None
    ) -> tuple[str, ...]:
        host = await in_thread(self._machines.host, machine)
        as_booted = await in_thread(_fits, machine, memory, host, check)
        saved = Saved(pages, memory / STATE, of_shed=True, as_booted=as_booted)
        return await self._machines.start_from(machine, saved, begins)


def _publish(stream: Path, machine: Machine, host: command.Host) -> None:
    """Put what machines go on from beside the `stream`, which goes, and the record of it."""
    folder = stream.parent
    try:
        split(stream, folder / MEMORY, folder / STATE, machine.memory_mb << 20)
    except StreamError as error:
        raise _unlike(f"what QEMU says of it is not understood: {error}") from error
    stream.unlink()
    for name in (MEMORY, STATE):
        (folder / name).chmod(0o400)
    _remember(folder)
    _record(folder, machine, host, state=digest_of(folder / STATE))


def _remember(folder: Path) -> None:
    """Note what tells whether the memory is still what it is now."""
    atomic_write(folder / HERE, json.dumps(fingerprint(folder / MEMORY)) + "\n", mode=0o400)


def _record(folder: Path, machine: Machine, host: command.Host, **files: object) -> None:
    """Record what was kept of `machine`, and what tells whether its files are still so."""
    record = {"identity": _identity(machine, host), "as_booted": host.as_booted, **files}
    atomic_write(folder / RECORD, json.dumps(record, indent=1) + "\n", mode=0o400)
    fsync_dir(folder)


def _intact(record: dict[str, Any], memory: Path, machine: Machine) -> None:
    """Raise `ValueError` when what others go on from is not what was kept."""
    if digest_of(memory / STATE) != record["state"]:
        raise ValueError("its state is not what was saved")
    known = record.get("memory_file")  # there, and not in a file of its own, as earlier versions have it
    if known is None:
        if not (memory / HERE).exists():  # it has come from another host, and was verified on the way
            _remember(memory)
        known = json.loads((memory / HERE).read_bytes())
    if fingerprint(memory / MEMORY) != known:
        raise ValueError("it was written to, or copied")


def _as_suspended(record: dict[str, Any], memory: Path, machine: Machine) -> None:
    """Raise `ValueError` when something was changed since `machine` was suspended."""
    if fingerprint(memory / STATE) != record["state_file"]:
        raise ValueError("it was written to, or copied")
    if fingerprint(machine.disks[0].path) != record["disk"]:
        raise ValueError("the disk was written to, or copied, since")


def _fits(machine: Machine, memory: Path, host: command.Host, check: _Check) -> bool:
    """Return whether what was kept was a machine that had booted for itself.

    Raises `UnavailableError` when `machine` cannot go on from it.
    """
    try:
        with (memory / RECORD).open("rb") as file:
            record = json.loads(file.read(_MOST_RECORD))
        as_booted, kept = record["as_booted"] is True, record["identity"]
        check(record, memory, machine)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unusable(f"it is not as it was kept: {error}") from None
    wanted = _identity(machine, replace(host, as_booted=as_booted))
    if kept == wanted:
        return as_booted
    if isinstance(kept, dict) and kept.get("qemu") != wanted["qemu"]:
        raise _unusable("it was made with another QEMU than is here now")
    raise _unusable("it is of another kind of machine than this server starts on this host")


def _identity(machine: Machine, host: command.Host) -> dict[str, Any]:
    """Return all that a machine and one that goes on from it must have in common, also on another host."""
    return identity(machine, host) | {"qemu": accel.release(host.program)}


def _unusable(why: str) -> UnavailableError:
    return UnavailableError(
        f"the memory that was kept cannot be used: {why}", code="MEMORY_UNUSABLE", hint="boot its disk: --no-memory"
    )


def _not_kept(machine: Machine, error: Exception) -> BackendError:
    return BackendError(f"the VM of shed {machine.name} cannot be kept: {error}", code="NOT_SAVED")


def _unlike(why: str) -> BackendError:
    return BackendError(
        f"the memory of the VM cannot be kept: {why}",
        code="NOT_SAVED",
        hint="keep its disk alone: --no-memory; or stop and start the shed first",
    )


def _option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1] if name in words[:-1] else ""
