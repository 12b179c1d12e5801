"""Machines that wait to become sheds, with everything real: they serve any image, upper and start, and end with the
server.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shed.backends.qemu import saving
from shed.backends.qemu.monitor import MonitorError, connected
from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.vms.machine import Machine, ended, works_for
from support.vms.templates import EITHER, WARM
from support.waiting import wait_until

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]
COUNT = 2


def filled(machine: Machine) -> list[int]:
    """Return the processes that wait, once all of them do."""
    return wait_until(lambda: spares(machine))


def spares(machine: Machine) -> list[int]:
    """Return the processes that wait, when all of them do, and nothing of others is left."""
    folders = [path for path in (machine.data / "spares").iterdir() if path.is_dir()]
    found = []
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):
            found.append(json.loads((folder / "vm.json").read_text())["pid"])
    return found if len(found) == len(folders) == COUNT and all(map(stands_still, folders)) else []


def stands_still(folder: Path) -> bool:
    """Tell whether QEMU says that the machine of a folder is paused."""

    async def ask() -> bool:
        async with asyncio.timeout(60), connected(folder) as monitor:
            return bool((await monitor.execute("query-status"))["status"] == "paused")

    try:
        return asyncio.run(ask())
    except (MonitorError, TimeoutError):
        return False


def create(machine: Machine, name: str, *words: str, image: str = "busybox") -> dict[str, Any]:
    """Make a shed of the default shape and return what the server says of it."""
    made = json.loads(machine.shed("create", name, "--image", image, "--json", *words))["shed"]
    assert made["boot"] == "warm"
    return dict(made)


def sh(machine: Machine, name: str, script: str) -> list[str]:
    """Run a shell script in a shed, which must succeed, and return the lines it prints."""
    return machine.shed("exec", name, "--", "sh", "-ec", script).splitlines()


@pytest.fixture(scope="module")
def machine(base_store: LayoutStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with spares of the default shape; all tests share it, and leave it with spares."""
    root = tmp_path_factory.mktemp("spares")
    copy_store(base_store, root / "data/images")
    machine = Machine(root, way=WARM)
    machine.way = EITHER  # a few are booted
    (root / ".config/shed/server.yaml").write_text(
        json.dumps({"ssh_port": 0, "default_image": "busybox", "qemu": {"warm_spares": COUNT}})
    )
    machine.shed("list")
    filled(machine)
    yield machine
    machine.end()
    assert [path.name for path in (machine.data / "spares").iterdir()] == [".lock"]


def test_two_of_two_images_become_what_was_asked_for(machine: Machine) -> None:
    """The rehearsal has left no file, mount or name; all that differs between sheds does; disks have the sizes that
    were asked for.
    """
    waiting = filled(machine)
    one = create(machine, "one")
    two = create(machine, "two", "--upper-size", "3G", image="base")
    assert {one["pid"], two["pid"]} == set(waiting)
    assert "claim" in one["timings"].keys() & two["timings"].keys()
    script = """
        od -An -tx1 -N16 /dev/urandom | tr -d ' \\n'; echo
        cat /proc/sys/kernel/random/uuid /proc/sys/kernel/random/boot_id /etc/machine-id /sys/class/net/e*/address
        hostname
        cat /sys/class/block/vda/size /sys/class/block/vdb/size; cat /sys/class/block/vd?/ro | tr -d '\\n'; echo
        date +%s; df -k / | tail -1 | tr -s ' ' | cut -d' ' -f2; grep -c . /proc/mounts; ls -A /workspace | wc -l
        cat /etc/hostname /etc/hosts | grep -c rehearsal || true"""
    seen = {name: sh(machine, name, script) for name in ("one", "two")}
    for what in range(8):
        assert seen["one"][what] != seen["two"][what], seen
    for name, made in (("one", one), ("two", two)):
        lines = seen[name]
        upper = (machine.data / "uppers" / name / "upper.ext4").stat().st_size
        assert lines[5] == name
        assert int(lines[6]) * 512 == upper == made["upper_size_bytes"]
        assert lines[8] == "011"
        assert abs(int(lines[9]) - time.time()) < 60
        assert upper * 0.9 < int(lines[10]) * 1024 <= upper
        assert lines[12:] == ["0", "0"]
    machine.shed("create", "cold", "--image", "busybox", "--cold")
    assert sh(machine, "cold", "grep -c . /proc/mounts") == [seen["one"][11]]
    disk = machine.data / "uppers/one/upper.ext4"
    sh(machine, "one", "dd if=/dev/urandom of=/root/big bs=1M count=24 2>/dev/null; sync")
    full = disk.stat().st_blocks
    sh(machine, "one", "dd if=/dev/zero of=/root/big bs=1M count=24 conv=notrunc 2>/dev/null; sync")
    assert full - disk.stat().st_blocks > 40_000  # what the guest writes zeros to becomes a hole, as in any other shed
    for name in ("one", "two", "cold"):
        machine.shed("delete", "--force", name)


def test_a_stopped_shed_starts_in_one_that_waits(machine: Machine) -> None:
    """With its files; what it writes then is in its own upper; a kill of the server and a stop are as for any other
    shed.
    """
    filled(machine)
    create(machine, "dev")
    identity = sh(machine, "dev", "echo kept > /root/kept; cat /etc/machine-id /sys/class/net/e*/address")
    machine.shed("stop", "dev")
    filled(machine)
    started = json.loads(machine.shed("start", "dev", "--json"))["shed"]
    assert (started["boot"], "claim" in started["timings"]) == ("warm", True)
    assert sh(machine, "dev", "cat /etc/machine-id /sys/class/net/e*/address /root/kept; echo more >> /root/kept") == [
        *identity,
        "kept",
    ]
    machine.shed("stop", "dev")
    machine.shed("start", "dev", "--cold")
    assert sh(machine, "dev", "cat /root/kept") == ["kept", "more"]
    machine.shed("delete", "--force", "dev")


def test_a_shed_whose_disk_is_bad_blames_nobody_else(machine: Machine) -> None:
    """One error that says how to repair it, no second attempt, and all is in good standing; a disk of an odd size is no
    reason either.
    """
    filled(machine)
    create(machine, "dev")
    sh(machine, "dev", "echo kept > /root/kept")
    machine.shed("stop", "dev")
    upper = machine.data / "uppers/dev/upper.ext4"
    with upper.open("r+b") as file:
        file.seek(1024)
        file.write(bytes(1024))
    waiting = filled(machine)
    done = machine.try_shed("start", "dev")
    assert done.returncode == 1
    assert b"error: the upper disk /dev/vda holds no ext4 file system" in done.stderr
    assert f"e2fsck -fy {upper}".encode() in done.stderr
    assert b"warning" not in done.stderr
    assert "could not be used" not in (machine.data / "logs/server.log").read_text()
    assert len(set(filled(machine)) & set(waiting)) == COUNT - 1
    subprocess.run(["e2fsck", "-fy", upper], check=False, stdout=subprocess.DEVNULL)
    assert "claim" in json.loads(machine.shed("start", "dev", "--json"))["shed"]["timings"]
    assert sh(machine, "dev", "cat /root/kept") == ["kept"]
    machine.shed("stop", "dev")
    os.truncate(upper, upper.stat().st_size - 100)  # within the last block, which a guest never needs
    filled(machine)
    assert b"warning" not in machine.try_shed("start", "dev").stderr
    assert sh(machine, "dev", "cat /root/kept") == ["kept"]
    machine.shed("delete", "--force", "dev")


def test_more_than_wait_at_once(machine: Machine) -> None:
    """Those that find none are restored; none is given out twice; all draw different random bytes; the pool is full
    again.
    """
    filled(machine)

    def live(name: str) -> tuple[int, str]:
        pid = create(machine, name)["pid"]
        (drawn,) = sh(machine, name, "od -An -tx1 -N16 /dev/urandom | tr -d ' \\n'; echo")
        return pid, drawn

    names = [f"once-{number}" for number in range(COUNT + 2)]
    with ThreadPoolExecutor(len(names)) as pool:
        made = list(pool.map(live, names))
    assert len({pid for pid, _ in made}) == len({drawn for _, drawn in made}) == len(names)
    for name in names:
        machine.shed("delete", "--force", name)
    filled(machine)


def holders(machine: Machine, name: str) -> list[int]:
    """Return the processes that have the writable layer of a shed open."""
    upper = machine.data / "uppers" / name / "upper.ext4"
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and any(link.readlink() == upper for link in (entry / "fd").iterdir()):
                found.append(int(entry.name))
    return found


def kill(server: int) -> None:
    """End a server as a crash does, and wait until it is gone."""
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: ended(server))


CLAIM, CONFIGURE = "taking a virtual machine that waits", "mounting disks"


@pytest.mark.parametrize(
    ("command", "step"), [("start", CLAIM), ("start", "vm.json"), ("start", CONFIGURE), ("create", CONFIGURE)]
)
def test_a_server_that_is_killed_while_it_gives_one_out(machine: Machine, command: str, step: str) -> None:
    """While the disks are exchanged, when the record is written, and while the guest is configured: one VM has the
    disk, or none.
    """
    if command == "start":
        create(machine, "cut")
        sh(machine, "cut", "echo kept > /root/kept")
        machine.shed("stop", "cut")
    waiting, server = filled(machine), machine.server_pid()
    if step == CLAIM:  # none of them answers
        for pid in waiting:
            os.kill(pid, signal.SIGSTOP)
    record = machine.data / "instances/cut/vm.json"
    assert not record.exists()
    with machine.start(command, "cut", "-v") as client:
        assert client.stderr is not None
        if step == "vm.json":
            wait_until(record.exists)
        else:
            assert any(step.encode() in line for line in client.stderr)
        kill(server)
        client.communicate(timeout=120)
    if step == CLAIM:
        for pid in waiting:
            with contextlib.suppress(ProcessLookupError):  # the one that was to be claimed may have been ended
                os.kill(pid, signal.SIGCONT)
    machine.shed("list")
    wait_until(lambda: not set(filled(machine)) & set(waiting))
    if command == "start" or json.loads(machine.shed("list", "--json")):  # a create may have been quicker
        assert sh(machine, "cut", "hostname; ls /root") == ["cut", *(["kept"] if command == "start" else [])]
        assert holders(machine, "cut") == [machine.show("cut")["pid"]]
    if step == "vm.json":
        pause(machine.data / "instances/cut")  # as one is between being restored and going on
        kill(machine.server_pid())
        assert sh(machine, "cut", "cat /root/kept") == ["kept"]
    machine.try_shed("delete", "--force", "cut")
    assert not [
        path for place in ("instances", "uppers") for path in (machine.data / place).glob("*cut") if path.is_dir()
    ]
    assert holders(machine, "cut") == []


def pause(folder: Path) -> None:
    """Have the machine of a folder stand still."""

    async def ask() -> None:
        async with asyncio.timeout(60):
            await saving.pause(folder)

    asyncio.run(ask())


def test_those_that_have_died_are_passed_over_and_a_killed_server_leaves_none(machine: Machine) -> None:
    """A create beside a dead or a hung spare succeeds; the next server ends what the killed one kept, and makes
    others.
    """
    dead, _ = filled(machine)
    os.kill(dead, signal.SIGKILL)
    pid = create(machine, "dev")["pid"]
    machine.shed("delete", "--force", "dev")
    hung = filled(machine)
    for each in hung:
        os.kill(each, signal.SIGSTOP)
    made = create(machine, "dev")
    pid = made["pid"]
    assert pid not in hung
    for each in hung:
        with contextlib.suppress(ProcessLookupError):  # the one that was claimed has been ended
            os.kill(each, signal.SIGCONT)
    assert made["timings"].keys() >= {"claim", "restore"}
    before = filled(machine)
    kill(machine.server_pid())
    assert machine.show("dev")["pid"] == pid
    wait_until(lambda: not set(filled(machine)) & set(before))
    assert not any(works_for(Path(f"/proc/{old}"), machine.data) for old in before)
    assert sh(machine, "dev", "hostname") == ["dev"]
    machine.shed("delete", "--force", "dev")
