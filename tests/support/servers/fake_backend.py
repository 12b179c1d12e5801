"""A backend whose virtual machines are processes of `fake_vm` in place of QEMU.

Their records, sockets and consoles are QEMU's own, as is the launcher: they outlive the server, are found again, and
can be killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

from shed.backends.base import Connection, Liveness, Machine, Network, Probe, Stream, Template
from shed.backends.qemu import process, userns
from shed.backends.qemu.command import Host
from shed.errors import BackendError, ConflictError
from shed.guest.protocol import PORT_PROXY
from shed.threads import in_thread


class FakeStream:
    """One Unix connection.  With `halves`, one that hangs up before we have ended our side was cut."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, halves: bool = False) -> None:
        self._reader = reader
        self._writer = writer
        self._halves = halves

    async def read(self, limit: int = 65536) -> bytes:
        try:
            data = await self._reader.read(limit)
        except ConnectionError:
            raise BackendError("stream cut", code="STREAM_RESET") from None
        if not data and self._halves and _hung_up(self._writer):
            raise BackendError("stream cut", code="STREAM_RESET")
        return data

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError:
            raise BackendError("stream cut", code="STREAM_RESET") from None

    async def write_eof(self) -> None:
        self._halves = False
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    def close(self) -> None:
        self._writer.close()


def _hung_up(writer: asyncio.StreamWriter) -> bool:
    poll = select.poll()
    poll.register(writer.get_extra_info("socket"), 0)
    return bool(poll.poll(0))


class FakeConnection:
    """The link is the hello stream: it ends when the process does."""

    def __init__(self, state_dir: Path, hello: dict[str, object], stream: FakeStream) -> None:
        self.hello = hello
        self._state_dir = state_dir
        self._stream = stream

    async def open(self, port: int) -> Stream:
        return await _open(self._state_dir, port)

    async def wait_closed(self) -> None:
        with contextlib.suppress(BackendError):
            while await self._stream.read():
                pass

    async def close(self) -> None:
        self._stream.close()


async def _open(state_dir: Path, port: int) -> FakeStream:
    try:
        with process.reachable(state_dir, process.AGENT_SOCKET) as path:
            reader, writer = await asyncio.open_unix_connection(path)
    except OSError:
        raise BackendError("nothing answers", code="STREAM_RESET") from None
    stream = FakeStream(reader, writer, halves=port == PORT_PROXY)
    await stream.write(b"%d\n" % port)
    return stream


class FakeBackend:
    """See the module.  `faults` are given to the next VMs; `unknown` makes every liveness question unanswerable."""

    name = "fake"
    network = Network("10.0.2.15/24", "10.0.2.2", "10.0.2.3")

    def __init__(self, *faults: str) -> None:
        self.faults = set(faults)
        self.unknown = False
        self.started: list[Machine] = []
        self.claimed: list[Machine] = []
        self.full: set[str] = set()
        """Names of sheds that wait for room on the disk."""
        self.waiting: set[Path] = set()
        """Folders of spares."""
        self.saves = False
        """Whether templates can be made: they are names alone, and a VM restored from one is as any other."""
        self.templates: dict[tuple[int, int], Template] = {}
        self.tried = self.made = 0
        self.saving = asyncio.Lock()

    async def probe(self) -> Probe:
        return Probe(usable=True, accel="none", reason="nothing is needed")

    def template(self, machine: Machine) -> Template | None:
        return self.templates.get((machine.cpus, machine.memory_mb))

    async def make_template(
        self, machine: Machine, rest: Callable[[Connection], Awaitable[None]], *, timeout: float
    ) -> Template:
        self.tried += 1
        if not self.saves:
            raise BackendError("this backend saves no machines")
        if self.saving.locked():
            raise ConflictError("another one is being made", code="LOCKED")
        async with self.saving:
            await asyncio.sleep(0.1)
        self.made += 1
        shape = (machine.cpus, machine.memory_mb)
        return self.templates.setdefault(shape, Template(Path("template-{}-{}".format(*shape)), str(self.made)))

    async def make_spare(
        self, machine: Machine, template: Template, rehearse: Callable[[Connection], Awaitable[None]], *, timeout: float
    ) -> None:
        await self.start(machine, template)
        try:
            link = await self.connect(machine.state_dir, timeout=timeout)
            try:
                await rehearse(link)
            finally:
                await link.close()
        except BaseException:
            await self.kill(machine.state_dir)
            raise
        self.waiting.add(machine.state_dir)

    async def claim(self, spare: Machine, machine: Machine) -> None:
        self.claimed.append(machine)
        self.waiting.discard(spare.state_dir)
        if "no-claim" in self.faults:
            await self.kill(spare.state_dir)
            raise BackendError("the VM that waits does not do what it is told")
        try:
            await in_thread(process.move, spare.state_dir, machine.state_dir, machine.name)
        except BaseException:
            for folder in (spare.state_dir, machine.state_dir):
                await self.kill(folder)
            raise

    async def sweep_templates(self) -> None:
        pass

    def is_whole(self, template: Template) -> bool:
        return "rotten" not in self.faults

    def drop_template(self, template: Template) -> None:
        self.templates = {shape: kept for shape, kept in self.templates.items() if kept != template}

    async def start(self, machine: Machine, template: Template | None = None) -> tuple[str, ...]:
        self.started.append(machine)
        if "no-start" in self.faults or (template is not None and "no-restore" in self.faults):
            raise BackendError("the VM cannot be started")
        for disk in machine.disks:
            assert disk.path.exists(), disk
        host = Host(Path(sys.executable), "none", str(uuid.uuid4()))
        seen = {name: os.environ[name] for name in ("HOME", "TMUX_TMPDIR") if name in os.environ} | {
            "PYTHONPATH": ":".join(sys.path)
        }
        words = [sys.executable, "-m", "support.servers.fake_vm", host.uuid, *self.faults]
        argv = ["/usr/bin/env", *(f"{name}={value}" for name, value in seen.items()), *words]
        try:
            await in_thread(process.launch, machine.state_dir, argv, host, machine.name, userns.NOBODY)
        except BaseException:
            await self.kill(machine.state_dir)
            raise
        return ("it warns",) if "warning" in self.faults else ()

    async def connect(self, state_dir: Path, *, timeout: float) -> Connection:
        deadline = time.monotonic() + timeout
        while self.pid(state_dir) is not None and time.monotonic() < deadline:
            if self.liveness(state_dir) is not Liveness.OURS:
                raise BackendError("the VM ended", code="VM_EXITED")
            with contextlib.suppress(BackendError, TimeoutError):
                stream = await _open(state_dir, 0)
                try:
                    async with asyncio.timeout(deadline - time.monotonic()):
                        hello = await stream.read()
                except BaseException:
                    stream.close()
                    raise
                if hello:
                    return FakeConnection(state_dir, json.loads(hello), stream)
                stream.close()
            await asyncio.sleep(0.02)
        raise BackendError(f"no hello within {timeout:g} s", code="AGENT_TIMEOUT")

    def liveness(self, state_dir: Path) -> Liveness:
        found = process.liveness(state_dir)
        return Liveness.UNKNOWN if self.unknown and process.load(state_dir) is not None else found

    async def half_started(self, state_dir: Path) -> bool:
        return False

    async def waits_for_room(self, state_dir: Path, *, go_on: bool) -> bool:
        if go_on:
            self.full.discard(state_dir.name)
        return state_dir.name in self.full

    async def wait_exit(self, state_dir: Path, *, timeout: float) -> bool:
        record = process.load(state_dir)
        return record is None or await process.wait_exit(record, timeout=timeout)

    async def kill(self, state_dir: Path) -> None:
        record = process.load(state_dir)
        self.waiting.discard(state_dir)
        if record is not None and not self.unknown:
            process.send_signal(record, signal.SIGKILL)
            await process.wait_exit(record, timeout=60)
            process.clear(state_dir)

    def pid(self, state_dir: Path) -> int | None:
        record = process.load(state_dir)
        return None if record is None else record.pid
