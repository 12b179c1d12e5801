"""A backend whose virtual machines are real processes of `fake_vm`: they outlive the server, are found by a record, and can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from shed.backends.base import Connection, Liveness, Machine, Network, Probe, Stream, Template
from shed.errors import BackendError, ConflictError
from shed.guest.protocol import PORT_PROXY

RECORD = "fake.json"


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

    def __init__(self, name: str, hello: dict[str, object], stream: FakeStream) -> None:
        self.hello = hello
        self._name = name
        self._stream = stream

    async def open(self, port: int) -> Stream:
        return await _open(self._name, port)

    async def wait_closed(self) -> None:
        with contextlib.suppress(BackendError):
            while await self._stream.read():
                pass

    async def close(self) -> None:
        self._stream.close()


async def _open(name: str, port: int) -> FakeStream:
    try:
        reader, writer = await asyncio.open_unix_connection("\0" + name)
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

    async def make_template(self, machine: Machine, rest: Callable[[Connection], Awaitable[None]], *, timeout: float) -> Template:
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
        for name in (RECORD, "console.log"):
            (spare.state_dir / name).rename(machine.state_dir / name)

    async def sweep_templates(self) -> None:
        pass

    def drop_template(self, template: Template) -> None:
        self.templates = {shape: kept for shape, kept in self.templates.items() if kept != template}

    async def start(self, machine: Machine, template: Template | None = None) -> tuple[str, ...]:
        self.started.append(machine)
        if "no-start" in self.faults or (template is not None and "no-restore" in self.faults):
            raise BackendError("the VM cannot be started")
        for disk in machine.disks:
            assert disk.path.exists(), disk
        name = f"shed-fake-{secrets.token_hex(8)}"
        with (machine.state_dir / "console.log").open("wb") as console:
            process = subprocess.Popen(
                [sys.executable, "-m", "support.fake_vm", name, *self.faults],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
            )
        process.returncode = 0  # it is not waited for by this object: see _reap
        record = {"pid": process.pid, "started": _start_time(process.pid), "name": name}
        (machine.state_dir / RECORD).write_text(json.dumps(record))
        return ("it warns",) if "warning" in self.faults else ()

    async def connect(self, state_dir: Path, *, timeout: float) -> Connection:
        record = _record(state_dir)
        deadline = time.monotonic() + timeout
        while record is not None and time.monotonic() < deadline:
            if self.liveness(state_dir) is not Liveness.OURS:
                raise BackendError("the VM ended", code="VM_EXITED")
            with contextlib.suppress(BackendError, TimeoutError):
                stream = await _open(str(record["name"]), 0)
                try:
                    async with asyncio.timeout(deadline - time.monotonic()):
                        hello = await stream.read()
                except BaseException:
                    stream.close()
                    raise
                if hello:
                    return FakeConnection(str(record["name"]), json.loads(hello), stream)
                stream.close()
            await asyncio.sleep(0.02)
        raise BackendError(f"no hello within {timeout:g} s", code="AGENT_TIMEOUT")

    def liveness(self, state_dir: Path) -> Liveness:
        record = _record(state_dir)
        if record is None:
            return Liveness.NOT_OURS
        if self.unknown:
            return Liveness.UNKNOWN
        _reap(int(str(record["pid"])))
        started = _start_time(int(str(record["pid"])))
        return Liveness.OURS if started is not None and started == record["started"] else Liveness.NOT_OURS

    async def wait_exit(self, state_dir: Path, *, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while self.liveness(state_dir) is not Liveness.NOT_OURS:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.01)
        return True

    async def kill(self, state_dir: Path) -> None:
        pid = self.pid(state_dir)
        if pid is not None and self.liveness(state_dir) is Liveness.OURS:
            os.kill(pid, signal.SIGKILL)
            await self.wait_exit(state_dir, timeout=10)
        self.waiting.discard(state_dir)
        if self.liveness(state_dir) is Liveness.NOT_OURS:
            (state_dir / RECORD).unlink(missing_ok=True)

    def pid(self, state_dir: Path) -> int | None:
        record = _record(state_dir)
        return None if record is None else int(str(record["pid"]))


def _record(state_dir: Path) -> dict[str, object] | None:
    try:
        value = json.loads((state_dir / RECORD).read_text())
    except FileNotFoundError:
        return None
    assert isinstance(value, dict)
    return value


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _start_time(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat; None when there is no such process, or it is dead already."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in {"Z", "X"} else fields[19]
