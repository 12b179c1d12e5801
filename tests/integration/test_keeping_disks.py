"""Keeping the disk of a real QEMU, which has no guest, and having it go on after whoever kept it was killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from shed.backends.qemu import keeping
from shed.backends.qemu.machines import PROGRAM
from shed.backends.qemu.monitor import Monitor, connected
from shed.errors import StorageError
from support.waiting import wait_until

pytestmark = pytest.mark.skipif(shutil.which(PROGRAM) is None, reason="needs QEMU")
DATA = os.urandom(24 << 20)
SIZE = 256 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The state folder of a QEMU that runs, with the disk ``disk``."""
    with (tmp_path / "disk").open("xb") as file:
        file.write(DATA)
        file.truncate(SIZE)
    node = f"driver=raw,node-name=vda,file.driver=file,file.filename={tmp_path}/disk,discard=unmap"
    monitor = f"unix:{tmp_path}/qmp.sock,server=on,wait=off"
    words = ["-machine", "none", "-nodefaults", "-display", "none", "-blockdev", node, "-qmp", monitor]
    with subprocess.Popen([PROGRAM, *words]) as process:
        try:
            wait_until(lambda: listens(tmp_path / "qmp.sock"))
            yield tmp_path
        finally:
            process.kill()


def listens(path: Path) -> bool:
    """Tell whether somebody listens there."""
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == 0


@contextlib.asynccontextmanager
async def still() -> AsyncIterator[None]:
    """A guest that there is not stands still."""
    yield


async def state(monitor: Monitor) -> tuple[str, list[str], list[str]]:
    """Return how the machine is, its jobs, and its disks."""
    jobs = [str(job["id"]) for job in await monitor.listed("query-jobs")]
    nodes = [str(node["node-name"]) for node in await monitor.listed("query-named-block-nodes")]
    return (
        (await monitor.execute("query-status"))["status"],
        jobs,
        [name for name in nodes if not name.startswith("#")],
    )


def in_qemu(folder: Path, work: Callable[[Monitor], Awaitable[None]]) -> None:
    """Do `work` with its monitor."""

    async def whole() -> None:
        async with connected(folder) as monitor:
            await work(monitor)

    asyncio.run(whole())


def look(folder: Path) -> tuple[str, list[str], list[str]]:
    """Return what `state` does."""
    found = []

    async def work(monitor: Monitor) -> None:
        found.append(await state(monitor))

    in_qemu(folder, work)
    return found[0]


RUNS: tuple[str, list[str], list[str]] = ("running", [], ["vda"])


def test_a_disk_is_kept_while_it_is_used(folder: Path) -> None:
    """Byte by byte, with its holes; what it is kept beside tells how far it is, and nothing is left in QEMU."""
    told: list[tuple[int, int]] = []
    asyncio.run(
        keeping.keep(folder, folder / "disk", folder / "copy", None, still=still, tell=lambda *done: told.append(done))
    )
    assert (folder / "copy").read_bytes() == (folder / "disk").read_bytes()
    assert (folder / "copy").stat().st_blocks * 512 < 2 * len(DATA)
    assert look(folder) == RUNS


@pytest.mark.parametrize("where", ["copying", "standing"])
def test_who_gives_up_leaves_a_machine_that_runs(folder: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether its disk is being copied, or it stands still."""
    monkeypatch.setattr(keeping, "_clone", lambda *_: False)

    class GivenUpError(Exception):
        pass

    def tell(_done: int, _whole: int) -> None:
        if where == "copying":
            raise GivenUpError

    async def end(_monitor: Monitor) -> None:
        raise GivenUpError

    if where == "standing":
        monkeypatch.setattr(keeping, "_end_mirror", end)
    else:
        monkeypatch.setattr(keeping, "_mirror", _slow(keeping._mirror))
    with pytest.raises(GivenUpError):
        asyncio.run(keeping.keep(folder, folder / "disk", folder / "copy", None, still=still, tell=tell))
    assert look(folder) == RUNS


def _slow(mirror: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Return a mirror that tells once more before it is done."""

    async def slow(monitor: Monitor, disk: Path, tell: Callable[[int, int], None]) -> None:
        await mirror(monitor, disk, lambda *_: None)
        tell(0, 1)

    return slow


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_ends_the_copy_alone(folder: Path) -> None:
    """The machine runs on, and can be kept elsewhere."""
    small = folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8M", "small", str(small)], check=True)
    try:
        with pytest.raises(StorageError) as caught:
            asyncio.run(keeping.keep(folder, folder / "disk", small / "copy", None, still=still, tell=lambda *_: None))
        assert caught.value.code == "NO_SPACE"
        assert look(folder) == RUNS
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
    asyncio.run(keeping.keep(folder, folder / "disk", folder / "copy", None, still=still, tell=lambda *_: None))
    assert (folder / "copy").read_bytes() == (folder / "disk").read_bytes()


@pytest.mark.parametrize("saved", [False, True], ids=["stopped", "saved"])
def test_a_machine_goes_on_after_a_kill(folder: Path, saved: bool) -> None:
    """Whoever was keeping it was killed with its mirror at work and the machine stopped, or its memory just saved."""

    async def half(monitor: Monitor) -> None:
        (folder / "copy").write_bytes(b"")
        os.truncate(folder / "copy", SIZE)
        await keeping._mirror(monitor, folder / "copy", lambda *_: None)
        await monitor.execute("stop")
        if saved:
            await keeping._end_mirror(monitor)
            await keeping._save(monitor, folder / "memory")

    in_qemu(folder, half)
    status, jobs, _ = look(folder)
    assert (status, jobs) == ("postmigrate" if saved else "paused", ["keep"])
    assert asyncio.run(keeping.goes_on(folder))
    assert look(folder) == RUNS
