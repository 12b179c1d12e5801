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
from collections.abc import Callable
from pathlib import Path

from shed.backends.base import Connection, Liveness, Machine, Network, Share, Stream
from shed.backends.interface import Capabilities, Prepare, Shape, Still, StoredTemplate, Template
from shed.backends.qemu import launching, process
from shed.backends.qemu.command import Host
from shed.errors import BackendError, ConflictError, UnavailableError
from shed.guest.protocol import PORT_PROXY
from shed.progress import Progress, Stop
from shed.sheds.upper import clone
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
    try:
        await stream.write(b"%d\n" % port)
    except BackendError:
        stream.close()
        raise
    return stream


class FakeBackend:
    """See the module.  `faults` are given to the next VMs; `unknown` makes every liveness question unanswerable.

    It offers what QEMU does but diagnostics; set `capabilities` to have it offer less.
    """

    name = "fake"
    network = Network("10.0.2.15/24", "10.0.2.2", "10.0.2.3")

    def __init__(self, *faults: str) -> None:
        self.faults = set(faults)
        self.unknown = False
        self.started: list[Machine] = []
        self.saved = FakeTemplates(self)
        self.spares = FakeSpares(self)
        self.full_disk = FakeFullDisk()
        self.moments = FakeMoments(self)
        self.mounting = FakeMounting(self)
        self.capabilities = Capabilities(
            self.saved, self.spares, self.full_disk, moments=self.moments, mounting=self.mounting
        )

    async def start(self, machine: Machine) -> tuple[str, ...]:
        if self.liveness(machine.state_dir) is not Liveness.NOT_OURS:
            raise ConflictError(f"the VM of shed {machine.name} runs already", code="SHED_ALREADY_RUNNING")
        self.started.append(machine)
        if "no-start" in self.faults:
            raise BackendError("the VM cannot be started")
        for disk in machine.disks:
            if not disk.path.exists():
                raise BackendError(f"the VM cannot be started: there is no {disk.path}", code="VM_START_FAILED")
        host = Host(Path(sys.executable), "none", str(uuid.uuid4()))
        seen = {name: os.environ[name] for name in ("HOME", "TMUX_TMPDIR") if name in os.environ} | {
            "PYTHONPATH": ":".join(sys.path)
        }
        words = [sys.executable, "-m", "support.servers.fake_vm", host.uuid, *self.faults]
        argv = ["/usr/bin/env", *(f"{name}={value}" for name, value in seen.items()), *words]
        try:
            await in_thread(launching.launch, machine.state_dir, argv, host, machine.name, None)
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

    async def wait_exit(self, state_dir: Path, *, timeout: float) -> bool:
        record = process.load(state_dir)
        return record is None or await process.wait_exit(record, timeout=timeout)

    async def kill(self, state_dir: Path) -> None:
        record = process.load(state_dir)
        self.spares.waiting.discard(state_dir)
        if record is not None and not self.unknown:
            process.send_signal(record, signal.SIGKILL)
            await process.wait_exit(record, timeout=60)
            process.clear(state_dir)

    def pid(self, state_dir: Path) -> int | None:
        record = process.load(state_dir)
        return None if record is None else record.pid


class FakeTemplates:
    """Templates are names alone, and a VM restored from one is as any other.  None can be made unless `possible`."""

    def __init__(self, backend: FakeBackend) -> None:
        self.possible = False
        self.kept: dict[tuple[int, int], Template] = {}
        """By processors and memory."""
        self.saving: dict[Path, int] = {}
        """The folders of VMs that are being saved, with their MiB."""
        self.tried = self.made = 0
        self._backend = backend
        self._turn = asyncio.Lock()

    def find(self, machine: Machine) -> Template | None:
        return self.kept.get((machine.cpus, machine.memory_mb))

    async def make(self, machine: Machine, prepare: Prepare, *, timeout: float) -> Template:
        self.tried += 1
        if not self.possible:
            raise BackendError("this backend saves no machines")
        if self._turn.locked():
            raise ConflictError("another one is being made", code="LOCKED")
        async with self._turn:
            await asyncio.sleep(0.1)
        self.made += 1
        shape = (machine.cpus, machine.memory_mb)
        return self.kept.setdefault(shape, Template(Path("template-{}-{}".format(*shape)), str(self.made)))

    async def restore(self, machine: Machine, template: Template) -> tuple[str, ...]:
        if "no-restore" in self._backend.faults:
            self._backend.started.append(machine)
            raise BackendError("the VM cannot be started")
        return await self._backend.start(machine)

    def is_whole(self, template: Template) -> bool:
        return "rotten" not in self._backend.faults

    def drop(self, template: Template) -> None:
        self.kept = {shape: kept for shape, kept in self.kept.items() if kept != template}

    async def sweep(self) -> None:
        pass

    def being_made(self) -> dict[Path, int]:
        return self.saving

    def stored(self) -> tuple[StoredTemplate, ...]:
        return ()


class FakeSpares:
    """VMs that run on while they wait, in the folders `waiting`."""

    def __init__(self, backend: FakeBackend) -> None:
        self.waiting: set[Path] = set()
        self.claimed: list[Machine] = []
        self._backend = backend

    async def make(self, machine: Machine, template: Template, prepare: Prepare, *, timeout: float) -> None:
        await self._backend.saved.restore(machine, template)
        try:
            link = await self._backend.connect(machine.state_dir, timeout=timeout)
            try:
                await prepare(link)
            finally:
                await link.close()
        except BaseException:
            await self._backend.kill(machine.state_dir)
            raise
        self.waiting.add(machine.state_dir)

    async def claim(self, spare: Machine, machine: Machine) -> None:
        self.claimed.append(machine)
        self.waiting.discard(spare.state_dir)
        if "no-claim" in self._backend.faults:
            await self._backend.kill(spare.state_dir)
            raise BackendError("the VM that waits does not do what it is told")
        try:
            await in_thread(process.move, spare.state_dir, machine.state_dir, machine.name)
        except BaseException:
            for folder in (spare.state_dir, machine.state_dir):
                await self._backend.kill(folder)
            raise


class FakeMoments:
    """What is in memory is the name of the VM; one that goes on from it stands still until it hears who it is."""

    def __init__(self, backend: FakeBackend) -> None:
        self._backend = backend

    def shape(self, state_dir: Path) -> Shape:
        return Shape(2, 2048)

    async def keep(
        self, machine: Machine, disk: Path, memory: Path | None, still: Still, tell: Callable[[int, int], None]
    ) -> None:
        tell(0, 1)
        async with still():
            clone(machine.disks[0].path, disk, machine.disks[0].path.stat().st_size, Progress(), Stop())
            if memory is not None:
                (memory / "memory").write_text(machine.name)

    async def suspend(self, machine: Machine, memory: Path, commit: Callable[[], None]) -> None:
        if "not-saved" in self._backend.faults:
            raise BackendError("the VM cannot be kept", code="NOT_SAVED")
        (memory / "memory").write_text(machine.name)
        (memory / "disk").write_text(str(machine.disks[0].path.stat().st_mtime_ns))
        await in_thread(commit)

    async def check(self, machine: Machine, memory: Path) -> None:
        if not (memory / "memory").exists():
            raise UnavailableError("the memory that was kept cannot be used: it is gone", code="MEMORY_UNUSABLE")

    async def go_on(self, machine: Machine, memory: Path) -> tuple[str, ...]:
        await self.check(machine, memory)
        self._backend.faults.add("kept")
        try:
            return await self._backend.start(machine)
        finally:
            self._backend.faults.remove("kept")

    async def resume(self, machine: Machine, memory: Path, begins: Callable[[], None]) -> tuple[str, ...]:
        if (memory / "disk").read_text() != str(machine.disks[0].path.stat().st_mtime_ns):
            raise UnavailableError("the memory that was kept cannot be used: another disk", code="MEMORY_UNUSABLE")
        if "no-start" not in self._backend.faults:
            await in_thread(begins)
            os.utime(machine.disks[0].path)  # it is written to from now on
        return await self.go_on(machine, memory if memory.exists() else memory.with_name(".memory.used"))


class FakeMounting:
    """The folders that VMs were given while they run are `given`; one with the fault `keeps` lets go of none."""

    def __init__(self, backend: FakeBackend) -> None:
        self.given: dict[Path, list[Share]] = {}
        self._backend = backend

    def offers(self, state_dir: Path) -> bool:
        (machine, *_) = [each for each in reversed(self._backend.started) if each.state_dir == state_dir]
        return machine.mounts is not None

    async def add(self, state_dir: Path, share: Share) -> None:
        self.given.setdefault(state_dir, []).append(share)

    async def remove(self, state_dir: Path, share: Share) -> None:
        if "keeps" in self._backend.faults:
            raise BackendError("the VM does not let go", code="STILL_SHARED")
        if share in self.given.get(state_dir, []):
            self.given[state_dir].remove(share)


class FakeFullDisk:
    """The VMs of the sheds called `full` are paused."""

    def __init__(self) -> None:
        self.full: set[str] = set()

    async def is_paused(self, state_dir: Path, *, resume: bool) -> bool:
        if resume:
            self.full.discard(state_dir.name)
        return state_dir.name in self.full
