"""The QEMU backend with real VMs, one layer below sheds: machines, and commands in their guests."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from shed.backends.base import Connection, Disk, Liveness, Machine, Share
from shed.backends.qemu import QemuBackend, process
from shed.config.paths import Paths
from shed.guest import protocol
from shed.images.resolve import resolve_image
from shed.oci.store import LayoutStore
from shed.sheds.agent import control
from shed.sheds.upper import make_upper
from shed.sheds.upper import template as upper_template
from support.vms.templates import CPUS, MEMORY_MB, lend, start

HELLO_SECONDS = 120.0
MEGABYTE = 1 << 20


class Lab:
    """One backend with a folder of its own, and machines to start with it."""

    def __init__(self, store: LayoutStore, root: Path, way: str) -> None:
        self.store = store
        self.root = root
        self.paths = Paths(root / "data", root / "run")
        self.backend = QemuBackend(self.paths)
        self.way = way
        lend(self.paths.data, way)
        self.made: list[Path] = []

    def machine(self, name: str = "demo", *, shares: tuple[Share, ...] = ()) -> Machine:
        """Describe a machine of the busybox image with an empty upper; its folder's path is too long for a socket."""
        image = resolve_image(self.store, "busybox")
        state_dir = self.root / ("long" * 30) / name
        state_dir.mkdir(parents=True)
        self.made.append(state_dir)
        templates = self.root / "templates"
        templates.mkdir(exist_ok=True)
        upper = self.root / f"upper-{name}" / "upper.ext4"
        make_upper(upper_template(templates, image.runtime, 1 << 30), upper, 1 << 30)
        disks = (Disk(upper, read_only=False), Disk(image.root, read_only=True), Disk(image.runtime, read_only=True))
        return Machine(name, CPUS, MEMORY_MB, image.kernel, image.initrd, disks, state_dir, shares)

    async def ready(self, machine: Machine) -> Connection:
        """Boot or restore `machine`, and configure it."""
        await start(self.backend, machine, self.way)
        link = await self.backend.connect(machine.state_dir, timeout=HELLO_SECONDS)
        mounts = [
            {"tag": share.tag, "target": "/workspace", "readonly": share.mode == "ro"} for share in machine.shares
        ]
        await control(
            link,
            "configure",
            wait=HELLO_SECONDS,
            name=machine.name,
            hostname=machine.name,
            disks=[disk.path.stat().st_size for disk in machine.disks[:-1]],
            upper_size=None,
            network=self.backend.network and asdict(self.backend.network),
            mounts=mounts,
            clock=time.time(),
            entropy=base64.b64encode(secrets.token_bytes(32)).decode(),
            init="auto",
            user="shed",
            workspace="/workspace",
            env={},
        )
        return link

    def consoles(self) -> str:
        """Return the ends of the consoles, for a test that fails."""
        logs = [folder / "console.log" for folder in self.made]
        return "".join(f"\n--- {log}\n{log.read_text(errors='replace')[-3000:]}" for log in logs if log.exists())


def vm_test(work: Callable[[Lab], Awaitable[None]], lab: Lab) -> None:
    """Run `work`; afterwards no VM is left, and a failure shows the consoles."""

    async def whole() -> None:
        try:
            await work(lab)
        finally:
            pids = [lab.backend.pid(folder) for folder in lab.made]
            for folder in lab.made:
                await lab.backend.kill(folder)
                assert lab.backend.liveness(folder) is Liveness.NOT_OURS
            for pid in pids:
                if pid is not None:
                    with pytest.raises(ProcessLookupError):
                        process.start_time(pid)

    try:
        asyncio.run(whole())
    except Exception as error:
        error.add_note(lab.consoles())
        raise


@contextlib.asynccontextmanager
async def command(link: Connection, *words: str, user: str = "") -> AsyncIterator[Command]:
    """Run a command in the guest."""
    stream = await link.open(protocol.PORT_EXEC)
    request = {"cmd": list(words), "tty": False, **({"user": user} if user else {})}
    await stream.write(protocol.exec_frame(protocol.EXEC_REQUEST, json.dumps(request).encode()))
    running = Command(stream)
    try:
        yield running
    finally:
        stream.close()


class Command:
    """A command that runs in the guest."""

    def __init__(self, stream: object) -> None:
        self.stream: Any = stream
        self._decoder = protocol.FrameDecoder()

    async def frame(self) -> tuple[int, bytes]:
        while (frame := self._decoder.frame()) is None:
            data = await self.stream.read(MEGABYTE)
            assert data, "the stream ended before the exit frame"
            self._decoder.feed(data)
        return frame

    async def finish(self) -> tuple[int, bytes]:
        """Return exit code and output, both streams together."""
        output: list[bytes] = []
        while True:
            kind, payload = await self.frame()
            if kind == protocol.EXIT_CODE:
                return json.loads(payload)["code"], b"".join(output)
            if kind in {protocol.DATA_FRAME, protocol.STDERR}:
                output.append(payload)


async def run(link: Connection, *words: str, user: str = "") -> tuple[int, bytes]:
    """Run a command to its end."""
    async with command(link, *words, user=user) as running:
        return await running.finish()
