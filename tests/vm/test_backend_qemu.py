"""The QEMU backend with real VMs: start, link, throughput, shares, adoption, and every way to end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shed.backends.base import Disk, Liveness, Share
from shed.backends.qemu import QemuBackend, accel, process
from shed.backends.qemu.machines import PROGRAM
from shed.backends.stream import StreamResetError
from shed.errors import BackendError, ConflictError
from shed.guest import protocol
from shed.images.resolve import resolve_image
from shed.oci.store import LayoutStore
from shed.sheds.agent import control
from support.vms.lab import HELLO_SECONDS, MEGABYTE, Lab, command, run, vm_test
from support.vms.machine import works_for
from support.vms.templates import WARM
from support.waiting import wait_until

pytestmark = [pytest.mark.vm, pytest.mark.slow]
OWNER = 54321
"""A user id of the host that nobody has."""


@pytest.fixture
def lab(way: str, small_store: LayoutStore, tmp_path: Path) -> Lab:
    return Lab(small_store, tmp_path, way)


def test_a_vm_lives_through_its_servers(lab: Lab) -> None:
    """Start, exec, a new server that adopts it, a clean end: one boot."""

    async def work(lab: Lab) -> None:
        machine = lab.machine()
        link = await lab.ready(machine)
        assert await run(link, "echo", "hello from the guest") == (0, b"hello from the guest\n")
        with pytest.raises(ConflictError, match="runs already"):
            await lab.backend.start(machine)
        code, uuid = await run(link, "sh", "-c", "cat /sys/class/dmi/id/product_uuid 2>/dev/null")
        record = process.load(machine.state_dir)
        assert record is not None
        assert (code, uuid.decode().strip()) == ((1, "") if lab.way == WARM else (0, record.uuid))

        await link.close()
        successor = QemuBackend(lab.paths)
        assert successor.liveness(machine.state_dir) is Liveness.OURS
        assert successor.pid(machine.state_dir) == lab.backend.pid(machine.state_dir)
        link = await successor.connect(machine.state_dir, timeout=HELLO_SECONDS)
        assert await run(link, "true") == (0, b"")

        waiting = asyncio.create_task(successor.wait_exit(machine.state_dir, timeout=HELLO_SECONDS))
        await control(link, "poweroff", wait=HELLO_SECONDS)
        assert await waiting
        await asyncio.wait_for(link.wait_closed(), 60)
        assert successor.liveness(machine.state_dir) is Liveness.NOT_OURS
        with pytest.raises(BackendError, match="ended before its agent answered") as caught:
            await successor.connect(machine.state_dir, timeout=60)
        assert caught.value.code == "VM_EXITED"
        assert (machine.state_dir / "console.log").exists()

    vm_test(work, lab)


def test_the_link_carries_much_and_many(lab: Lab, record_property: Callable[[str, object], None]) -> None:
    """A great deal of data goes each way, whole, and a short command beside a stream that nobody reads is not held
    up.
    """

    async def work(lab: Lab) -> None:
        link = await lab.ready(lab.machine())
        size = 16 * MEGABYTE
        start = time.monotonic()
        code, output = await run(link, "sh", "-c", f"dd if=/dev/zero bs=65536 count={size // 65536} 2>/dev/null")
        record_property("MB/s out of the guest", size / (time.monotonic() - start) / 1e6)
        assert (code, len(output), output.count(0)) == (0, size, size)

        start = time.monotonic()
        async with command(link, "sh", "-c", "dd bs=65536 of=/tmp/copy 2>/dev/null; wc -c < /tmp/copy") as counting:

            async def feed() -> None:
                for _ in range(size // MEGABYTE):
                    await counting.stream.write(protocol.exec_frame(protocol.DATA_FRAME, bytes(MEGABYTE)))
                await counting.stream.write(protocol.exec_frame(protocol.STDIN_EOF))

            feeding = asyncio.create_task(feed())
            assert await counting.finish() == (0, b"%d\n" % size)
            await feeding
        record_property("MB/s into the guest", size / (time.monotonic() - start) / 1e6)

        trips = []
        for _ in range(50):
            start = time.monotonic()
            stream = await link.open(9)  # nothing listens there: the shortest answer there is
            with pytest.raises(StreamResetError):
                await stream.read()
            trips.append(time.monotonic() - start)
        record_property("ms round trip", statistics.median(trips) * 1000)

        async with command(link, "cat", "/dev/zero") as greedy:
            await greedy.frame()  # and then nobody reads: the guest waits
            assert await run(link, "echo", "still here") == (0, b"still here\n")

    vm_test(work, lab)


_LIMITS = """
import _socket, fcntl, mmap, os
def attempt(what, call):
    try:
        call()
        print(what, "works")
    except OSError as error:
        print(what, os.strerror(error.errno))
def removed():
    descriptor = os.open("open", os.O_CREAT | os.O_RDWR)
    os.unlink("open")
    return descriptor
os.chdir("/workspace")
attempt("fifo", lambda: os.mkfifo("fifo"))
attempt("socket", lambda: _socket.socket(_socket.AF_UNIX).bind("socket"))
attempt("chown to another", lambda: os.chown("moved", 5, 5))
attempt("chown to the owner", lambda: os.chown("moved", 1000, 1000))
attempt("hard link", lambda: (os.link("moved", "hard"), os.unlink("hard")))
attempt("attribute", lambda: os.setxattr("moved", "user.a", b"1"))
attempt("shared mapping to write", lambda: mmap.mmap(os.open("moved", os.O_RDWR), 0))
attempt("shared mapping to read", lambda: mmap.mmap(os.open("moved", os.O_RDONLY), 0, prot=mmap.PROT_READ))
attempt("file without a name", lambda: os.open(".", os.O_TMPFILE | os.O_RDWR))
attempt("writing to a removed file", lambda: os.write(removed(), b"x"))
attempt("size of a removed file", lambda: os.fstat(removed()))
attempt("truncating a removed file", lambda: os.ftruncate(removed(), 0))
attempt("mode of a removed file", lambda: os.fchmod(removed(), 0o600))
attempt("lock that the host holds", lambda: fcntl.flock(os.open("moved", os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB))
"""
_LIMITS_MET = b"""\
fifo No such device or address
socket No such device or address
chown to another Invalid argument
chown to the owner works
hard link works
attribute works
shared mapping to write works
shared mapping to read works
file without a name Operation not supported
writing to a removed file works
size of a removed file works
truncating a removed file No such file or directory
mode of a removed file No such file or directory
lock that the host holds works
"""
"""What docs/reference/workspace.md tells."""


@pytest.mark.parametrize("owner", [0, OWNER])
def test_a_shared_folder_belongs_to_the_guests_user(lab: Lab, owner: int) -> None:
    """Edits on either side are seen by the other, and what the guest makes belongs to the folder's owner."""
    if os.geteuid():
        owner = os.geteuid()
    folder = lab.root / "a folder, with a comma"
    folder.mkdir()
    (folder / "from-host").write_text("host\n")
    (folder / "secret").write_text("of root's\n")
    (folder / "secret").chmod(0o600)
    if not os.geteuid():
        os.chown(folder, owner, owner)
        os.chown(folder / "from-host", owner, owner)
        os.chown(folder / "secret", 0, 0)

    async def work(lab: Lab) -> None:
        link = await lab.ready(lab.machine(shares=(Share("workspace", folder, 1000, 1000),)))
        script = (
            "cd /workspace && cat from-host && echo guest > made && echo more >> from-host && mkdir dir && ln -s made "
            "link"
            " && ! chmod 4711 made 2>/dev/null && mv made moved && touch gone && rm gone && stat -c %u:%g:%a . "
            "from-host moved dir"
        )
        code, output = await run(link, "/bin/busybox", "sh", "-c", script)
        assert (code, output) == (0, b"host\n1000:1000:755\n1000:1000:644\n1000:1000:644\n1000:1000:755\n"), output
        assert (folder / "from-host").read_text() == "host\nmore\n"
        assert (folder / "moved").read_text() == "guest\n"
        assert (folder / "link").readlink() == Path("made")
        assert not (folder / "gone").exists()
        for name in ("moved", "dir", "link", "from-host"):
            assert (folder / name).lstat().st_uid == owner, name
        (folder / "later").write_text("written while it runs\n")
        assert await run(link, "cat", "/workspace/later") == (0, b"written while it runs\n")
        with (folder / "moved").open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            lib = "/run/shed-runtime/lib"
            python = (f"{lib}/ld-linux-x86-64.so.2", "--library-path", lib, "/run/shed-runtime/bin/python3", "-c")
            assert await run(link, *python, _LIMITS) == (0, _LIMITS_MET)
        assert {path.name for path in folder.iterdir()} == {"dir", "from-host", "later", "link", "moved", "secret"}
        assert (folder / "moved").stat().st_uid == owner
        code, output = await run(link, "cat", "/workspace/secret")
        assert (code == 0) == (owner in {0, os.geteuid()}), (
            output
        )  # guest's root reads what the owner can read, no more

    vm_test(work, lab)


def test_a_vm_that_cannot_start_says_why(lab: Lab) -> None:
    """A disk that is not there, one that another VM writes, and too much memory: QEMU's own words are in the error, and
    nothing is left.
    """

    async def work(lab: Lab) -> None:
        first = lab.machine("first")
        await lab.backend.start(first)
        second = lab.machine("second")
        for disk, words in ((first.disks[0], "lock"), (Disk(lab.root / "nothing", read_only=False), "No such file")):
            with pytest.raises(BackendError, match=words) as caught:
                await lab.backend.start(replace(second, disks=(disk, *second.disks[1:])))
            assert caught.value.code == "VM_START_FAILED"
            assert lab.backend.liveness(second.state_dir) is Liveness.NOT_OURS
            assert lab.backend.pid(second.state_dir) is None
        with pytest.raises(BackendError, match="Cannot allocate memory") as caught:
            await lab.backend.start(replace(second, memory_mb=1 << 28))  # more than a process can address
        assert "--memory" in str(caught.value.hint)
        await lab.backend.start(second)

    vm_test(work, lab)


def test_a_guest_that_fails_on_its_way_is_noticed_at_once(lab: Lab) -> None:
    """No runtime disk: the numbered failure on the console is in the error, long before the timeout."""

    async def work(lab: Lab) -> None:
        machine = lab.machine()
        empty = lab.root / "empty"
        empty.write_bytes(bytes(MEGABYTE))
        await lab.backend.start(replace(machine, disks=(*machine.disks[:2], Disk(empty, read_only=True))))
        with pytest.raises(BackendError, match=r"SHED-INIT-01") as caught:
            await lab.backend.connect(machine.state_dir, timeout=HELLO_SECONDS)
        assert caught.value.code == "VM_EXITED"

    vm_test(work, lab)


def test_ends_that_nobody_asked_for(lab: Lab) -> None:
    """A connect that comes too late, a killed VMM, a kill in the middle of the boot, kills that are repeated."""

    async def work(lab: Lab) -> None:
        machine = lab.machine()
        await lab.backend.start(machine)
        with pytest.raises(BackendError, match="did not answer within") as caught:
            await lab.backend.connect(machine.state_dir, timeout=0.3)
        assert caught.value.code == "AGENT_TIMEOUT"
        link = await lab.backend.connect(machine.state_dir, timeout=HELLO_SECONDS)
        pid = lab.backend.pid(machine.state_dir)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await asyncio.wait_for(link.wait_closed(), 60)
        assert await lab.backend.wait_exit(machine.state_dir, timeout=60)
        assert lab.backend.liveness(machine.state_dir) is Liveness.NOT_OURS

        await lab.backend.start(machine)
        connecting = asyncio.create_task(lab.backend.connect(machine.state_dir, timeout=HELLO_SECONDS))
        await asyncio.sleep(0.5)
        await lab.backend.kill(machine.state_dir)
        await lab.backend.kill(machine.state_dir)
        with pytest.raises(BackendError) as caught:
            await connecting
        assert caught.value.code == "VM_EXITED"

    vm_test(work, lab)


def test_a_start_that_is_given_up_leaves_nothing(lab: Lab) -> None:
    """Cancelled at any moment, no process and no record stay."""

    async def work(lab: Lab) -> None:
        machine = lab.machine()
        for delay in (0.0, 0.005, 0.02, 0.04, 0.08):
            starting = asyncio.create_task(lab.backend.start(machine))
            await asyncio.wait([starting], timeout=delay)
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
                await lab.backend.kill(machine.state_dir)  # it was quicker
            assert lab.backend.pid(machine.state_dir) is None
            wait_until(
                lambda: not [path for path in Path("/proc").glob("[0-9]*") if works_for(path, machine.state_dir)]
            )

    vm_test(work, lab)


def test_the_probes_guest_shows_life_and_ends_by_itself(small_store: LayoutStore) -> None:
    """The way KVM is tried works with this kernel: emulated, it must come through."""
    program = shutil.which(PROGRAM)
    assert program is not None
    assert accel.boots(Path(program), resolve_image(small_store, "busybox").kernel, "tcg", seconds=int(HELLO_SECONDS))


@pytest.mark.skipif(not os.access(accel.KVM_DEVICE, os.R_OK | os.W_OK), reason="no /dev/kvm to try")
def test_a_real_kvm_device_gets_its_verdict_in_time(
    small_store: LayoutStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Working or hanging, the answer comes soon, once, and no process stays."""
    monkeypatch.delenv("SHED_ACCEL", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # by which its guest is told from others'
    program = shutil.which(PROGRAM)
    assert program is not None
    verdict = accel.find(tmp_path, program=Path(program), kernel=resolve_image(small_store, "busybox").kernel)
    assert accel.known(tmp_path) == verdict
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if os.fsencode(tmp_path) in _words(path)]


def _words(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
