"""How a guest starts, fails and ends, in real VMs: the numbered failures, identity, users, and poweroff."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from shed.backends.base import Connection, Disk, Machine
from shed.backends.qemu import QemuBackend, process
from shed.config.paths import Paths
from shed.errors import BackendError
from shed.guest import protocol
from shed.images.bootkit.upper import READY
from shed.images.resolve import resolve_image
from shed.oci.store import LayoutStore
from shed.sheds.agent import control
from shed.sheds.upper import make_upper
from shed.sheds.upper import template as upper_template
from support.vms.templates import COLD, CPUS, MEMORY_MB, lend, start

pytestmark = [pytest.mark.vm, pytest.mark.slow]
PATIENCE = 120.0
SIZE = 9 << 30
"""Of the writable layer: between two that come ready-made, and with more group descriptors than fit into the smaller
one's block.
"""


class Guest:
    """One machine of the busybox image."""

    def __init__(self, store: LayoutStore, folder: Path, way: str) -> None:
        image = resolve_image(store, "busybox")
        self.folder = folder
        self.upper = folder / "upper" / "upper.ext4"
        (folder / "templates").mkdir()
        make_upper(upper_template(folder / "templates", image.runtime, SIZE), self.upper, SIZE)
        self.backend = QemuBackend(Paths(folder / "data", folder / "run"))
        self.way = way
        lend(folder / "data", way)
        state = folder / "state"
        state.mkdir()
        disks = (
            Disk(self.upper, read_only=False),
            Disk(image.root, read_only=True),
            Disk(image.runtime, read_only=True),
        )
        self.machine = Machine("demo", CPUS, MEMORY_MB, image.kernel, image.initrd, disks, state)

    def with_disk(self, index: int, path: Path) -> None:
        """Put another file behind one of the disks."""
        disks = list(self.machine.disks)
        disks[index] = replace(disks[index], path=path)
        self.machine = replace(self.machine, disks=tuple(disks))

    async def start(self) -> Connection:
        """Boot or restore the machine; return once it said hello."""
        await start(self.backend, self.machine, self.way)
        return await self.backend.connect(self.machine.state_dir, timeout=PATIENCE)

    async def configure(self, link: Connection, **change: object) -> dict[str, Any]:
        """Configure it."""
        entropy = base64.b64encode(secrets.token_bytes(32)).decode()
        disks = [disk.path.stat().st_size for disk in self.machine.disks[:-1]]
        network = self.backend.network and asdict(self.backend.network)
        fields = {
            "name": "demo",
            "network": network,
            "clock": time.time(),
            "entropy": entropy,
            "disks": disks,
            **change,
        }
        return await control(link, "configure", wait=PATIENCE, **fields)

    async def run(self, link: Connection, *words: str, **request: object) -> tuple[int, str]:
        """Run a command; return its exit code and output."""
        stream = await link.open(protocol.PORT_EXEC)
        await stream.write(protocol.exec_frame(protocol.EXEC_REQUEST, json.dumps({"cmd": words, **request}).encode()))
        decoder, output = protocol.FrameDecoder(), b""
        while data := await stream.read():
            decoder.feed(data)
            while frame := decoder.frame():
                if frame[0] == protocol.EXIT_CODE:
                    stream.close()
                    return int(json.loads(frame[1])["code"]), output.decode()
                output += frame[1]
        raise AssertionError("no exit frame")

    async def off(self, link: Connection) -> float:
        """Power off; return how many seconds that took."""
        before = time.monotonic()
        await control(link, "poweroff", wait=PATIENCE)
        assert await self.backend.wait_exit(self.machine.state_dir, timeout=PATIENCE)
        took = time.monotonic() - before
        await process.console_settled(self.machine.state_dir)
        return took

    def console(self) -> str:
        """What it printed."""
        return (self.machine.state_dir / "console.log").read_text(errors="replace")

    def play(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work`; afterwards no VM is left, and a failure shows the console."""

        async def whole() -> None:
            try:
                await work()
            finally:
                await self.backend.kill(self.machine.state_dir)

        try:
            asyncio.run(whole())
        except BaseException as error:
            error.add_note(self.console()[-3000:])
            raise


@pytest.fixture
def guest(way: str, small_store: LayoutStore, tmp_path: Path) -> Guest:
    """A machine that is not started yet."""
    return Guest(small_store, tmp_path, way)


def test_start_identity_and_clean_end(guest: Guest) -> None:
    """Upper grown, identity settled once, limits and mounts as promised, and a journal that needs no recovery."""

    async def work() -> None:
        link = await guest.start()
        answer = await guest.configure(link)
        assert answer["init"] == "agent"
        assert answer["ready_ms"] == pytest.approx(sum(answer["steps"].values()), abs=200)
        with pytest.raises(BackendError, match="already"):
            await guest.configure(link)
        code, output = await guest.run(
            link, "sh", "-c", "hostname; cat /etc/machine-id; df -m / | tail -1; ulimit -Hn; date +%s; cat /proc/1/comm"
        )
        hostname, machine_id, disk, files, clock, init = output.splitlines()
        assert (code, hostname, files) == (0, "demo", "524288")
        assert int(disk.split()[1]) > SIZE * 0.9 / (1 << 20)
        assert abs(int(clock) - time.time()) < 60
        assert "ld-linux" in init
        await control(link, "clock", wait=30, adjust=10_000)
        assert abs(int((await guest.run(link, "sh", "-c", "date +%s"))[1]) - time.time() - 10_000) < 60
        assert await guest.run(link, "sh", "-c", "echo kept >/var/file; exit 3") == (3, "")
        await guest.off(link)
        features = subprocess.run(
            ["/sbin/dumpe2fs", "-h", guest.upper], check=True, capture_output=True, text=True
        ).stdout
        assert "needs_recovery" not in features
        subprocess.run(["/sbin/e2fsck", "-f", "-n", guest.upper], check=True, capture_output=True)
        link = await guest.start()
        await guest.configure(link)
        assert await guest.run(link, "cat", "/etc/machine-id", "/var/file") == (0, f"{machine_id}\nkept\n")
        await guest.off(link)

    guest.play(work)


def test_large_ready_made_uppers_mount(small_store: LayoutStore, tmp_path: Path) -> None:
    """By the guest's kernel, as large as they should be; written to, they are still clean and sparse.  Other tests have
    small ones.
    """
    guest = Guest(small_store, tmp_path, COLD)  # no template has so many disks
    sizes = dict(zip((f"/dev/vd{letter}" for letter in "defgh"), READY[-5:], strict=True))
    disks = {device: guest.folder / device.rpartition("/")[2] / "upper.ext4" for device in sizes}
    for device, size in sizes.items():
        make_upper(upper_template(guest.folder / "templates", guest.machine.disks[2].path, size), disks[device], size)
    guest.machine = replace(
        guest.machine, disks=(*guest.machine.disks, *(Disk(disk, read_only=False) for disk in disks.values()))
    )
    script = (
        "mkdir -p /mnt; for disk in $@; do mount -t ext4 $disk /mnt; echo kept >/mnt/file; df -k /mnt | tail -1; "
        "umount /mnt; done"
    )

    async def work() -> None:
        link = await guest.start()
        await guest.configure(link)
        code, output = await guest.run(link, "sh", "-ec", script, "sh", *sizes, user="root")
        assert code == 0, output
        found = {line.split()[0]: int(line.split()[1]) << 10 for line in output.splitlines()}
        assert all(size * 0.9 < found[device] <= size for device, size in sizes.items()), found
        await guest.off(link)
        for disk in disks.values():
            subprocess.run(["/sbin/e2fsck", "-f", "-n", disk], check=True, capture_output=True)
            assert disk.stat().st_blocks * 512 < 4 << 20

    guest.play(work)


def test_poweroff_waits_for_nobody(guest: Guest) -> None:
    """Programs that ignore every signal do not hold the machine for long, and what they wrote is kept."""

    async def work() -> None:
        link = await guest.start()
        await guest.configure(link)
        stubborn = (
            "trap '' TERM HUP INT; echo written >/root/file 2>/dev/null || echo written >/file; echo up; while "
            ":; do sleep 1; done"
        )
        stream = await link.open(protocol.PORT_EXEC)
        await stream.write(
            protocol.exec_frame(
                protocol.EXEC_REQUEST, json.dumps({"cmd": ["sh", "-c", stubborn], "user": "root"}).encode()
            )
        )
        while b"up" not in await stream.read():
            pass
        assert await guest.off(link) < PATIENCE / 2  # below one second on a machine that does nothing else
        assert "Power down" in guest.console()

    guest.play(work)


def test_numbered_failures(guest: Guest, tmp_path: Path) -> None:
    """A corrupt upper and a root that is none: the number comes back, stands on the console, and nothing is written."""

    async def failing(code: str) -> None:
        link = await guest.start()
        with pytest.raises(BackendError) as caught:
            await guest.configure(link)
        assert caught.value.code == code
        async with asyncio.timeout(PATIENCE):
            while f"[{code}]" not in guest.console():  # the serial line is slower than the answer
                await asyncio.sleep(0.05)
        with pytest.raises(BackendError, match="failed already"):
            await guest.configure(link)
        assert (await control(link, "health", wait=PATIENCE))["state"] == "failed"
        await guest.off(link)

    async def work() -> None:
        with guest.upper.open("r+b") as file:
            file.write(bytes(1 << 16))
        before = guest.upper.stat().st_blocks
        await failing("SHED-INIT-06")
        assert guest.upper.stat().st_blocks == before
        source = upper_template(guest.folder / "templates", guest.machine.disks[2].path, 1 << 30)
        make_upper(source, guest.folder / "u2" / "upper.ext4", 1 << 30)
        guest.with_disk(0, guest.folder / "u2" / "upper.ext4")
        empty = tmp_path / "empty"
        empty.write_bytes(bytes(1 << 20))
        guest.with_disk(1, empty)
        await failing("SHED-INIT-03")

    guest.play(work)


def test_a_runtime_that_is_none_ends_the_machine(guest: Guest, tmp_path: Path) -> None:
    """The initramfs says why, and switches off instead of hanging."""

    async def work() -> None:
        empty = tmp_path / "empty"
        empty.write_bytes(bytes(1 << 20))
        guest.with_disk(2, empty)
        await guest.backend.start(guest.machine)
        assert await guest.backend.wait_exit(guest.machine.state_dir, timeout=PATIENCE)
        assert "shed-initramfs PANIC [SHED-INIT-01]" in guest.console()

    guest.play(work)


def test_systemd_asked_for_and_not_there(guest: Guest) -> None:
    """The image has none: a numbered failure, not a surprise."""

    async def work() -> None:
        link = await guest.start()
        with pytest.raises(BackendError, match="no systemd") as caught:
            await guest.configure(link, init="systemd")
        assert caught.value.code == "SHED-INIT-09"

    guest.play(work)
