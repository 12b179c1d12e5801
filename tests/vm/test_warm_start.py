"""Warm starts with everything real: what must differ differs, what is damaged is done without, and nothing of a user is
in a template.
"""

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shed import AsyncClient, Client
from shed.backends.qemu.templates import LOCK, check
from shed.fsutil import locked
from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.vms.machine import Machine, command_line, ended, works_for
from support.vms.templates import EITHER
from support.waiting import wait_until

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]
SHAPE = ("--cpus", "1", "--memory", "256M")
IN_WAITING = 2
"""Sockets to what the next VM needs, which is made when nothing was started for a moment."""
IN_A_ROW, AT_ONCE = int(os.environ.get("SHED_TEST_IN_A_ROW", "3")), int(os.environ.get("SHED_TEST_AT_ONCE", "4"))
"""How often a shed is made and deleted; before a release 200, and 40."""
USER = 54321
"""A user id that nobody has."""
MARKER = "marker-q7x2"
"""Name of the shed after whose start the template is made."""


def create(machine: Machine, name: str, *words: str, image: str = "busybox") -> str:
    """Make a shed and return how its VM came up."""
    made = json.loads(machine.shed("create", name, "--image", image, *SHAPE, "--json", *words))
    return str(made["shed"]["boot"])


def start(machine: Machine, name: str, *words: str) -> str:
    """Start a shed and return how its VM came up."""
    return str(json.loads(machine.shed("start", name, "--json", *words))["shed"]["boot"])


def sh(machine: Machine, name: str, script: str, *, stdin: bytes = b"") -> str:
    """Run a shell script in a shed, which must succeed, and return what it prints."""
    return machine.shed("exec", name, "--", "sh", "-ec", script, stdin=stdin)


def templates(machine: Machine) -> list[Path]:
    """Return the folders of the templates there are."""
    return list((machine.data / "templates").glob("vm-*"))


@pytest.fixture(scope="module")
def machine(base_store: LayoutStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with a template, made after its first shed; all tests share it, with sheds of their own names, and
    leave a template.
    """
    root = tmp_path_factory.mktemp("warm")
    copy_store(base_store, root / "data/images")
    machine = Machine(root, way=EITHER)
    assert create(machine, MARKER) == "cold"
    wait_until(lambda: templates(machine))
    yield machine
    machine.end()


def test_a_template_knows_nothing_of_the_shed_before_it(machine: Machine) -> None:
    """Its memory and its state hold no name, no host key, no variable of a shed; only its owner may look."""
    (template,) = templates(machine)
    assert template.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in template.iterdir()) == ["memory", "state", "template.json"]
    held = b"".join(path.read_bytes() for path in template.iterdir())
    assert b"shed-agent" in held or b"shed.agent" in held  # what is looked through is the guest's memory
    for word in (MARKER, "SHED_NAME=", str(machine.data / "instances"), "busybox:latest"):
        assert word.encode() not in held, word


def test_what_must_differ_differs(machine: Machine) -> None:
    """Four sheds of three images from one template, and the cold one: random numbers, identity, clock, disks and cards
    are their own.
    """
    images = {"one": "busybox", "two": "busybox", "three": "base", "four": "base"}
    script = """
        od -An -tx1 -N16 /dev/urandom | tr -d ' \\n'; echo
        cat /proc/sys/kernel/random/uuid /proc/sys/kernel/random/boot_id /etc/machine-id
        cat /sys/class/net/e*/address; hostname; tail -1 /etc/hosts | cut -f2
        cat /sys/class/block/vda/size /sys/class/block/vdb/size
        cat /sys/class/block/vd?/ro | tr -d '\n'; echo; df -k / | tail -1; date +%s; cut -d. -f1 /proc/uptime"""
    for name, image in images.items():
        assert create(machine, name, "--upper-size", "3G" if name == "two" else "2G", image=image) == "warm"
    seen = {name: sh(machine, name, script).splitlines() for name in (MARKER, *images)}
    for what in range(5):
        assert len({lines[what] for lines in seen.values()}) == 5, seen
    for name, lines in seen.items():
        assert lines[5:7] == [name, name]
        upper = machine.data / "uppers" / name / "upper.ext4"
        assert int(lines[7]) * 512 == upper.stat().st_size
        assert lines[9] == "011"
        assert upper.stat().st_size * 0.9 < int(lines[10].split()[1]) * 1024 <= upper.stat().st_size
        assert abs(int(lines[11]) - time.time()) < 60
        assert int(lines[12]) < 300
    roots = {name: int(lines[8]) for name, lines in seen.items()}
    assert roots["one"] == roots["two"] == roots[MARKER] != roots["three"] == roots["four"]
    assert sh(machine, "four", "ip -o link 2>/dev/null | grep -c e || true; sudo -n id -u").endswith("0\n")
    for name in images:
        machine.shed("delete", "--force", name)


def test_each_start_may_come_up_the_other_way(machine: Machine) -> None:
    """Warm, cold, and warm again: files, identity and network card stay."""
    assert create(machine, "changes") == "warm"
    look = "cat /etc/machine-id /sys/class/net/e*/address /root/kept"
    seen = {sh(machine, "changes", f"echo kept > /root/kept; {look}")}
    for way in ("cold", "warm"):
        machine.shed("stop", "changes")
        assert start(machine, "changes", *(["--cold"] if way == "cold" else [])) == way
        seen.add(sh(machine, "changes", look))
    assert len(seen) == 1
    machine.shed("delete", "--force", "changes")


def test_a_program_can_have_it_booted_too(machine: Machine) -> None:
    """As the command line can, by the one SDK and the other."""
    url = f"unix://{machine.environment['SHED_RUNTIME_DIR']}/shed.sock"
    with Client(url).create(image="shell-less", cpus=1, memory_mb=256, cold=True) as shed:
        assert shed.info.boot == "cold"
        shed.stop()

        async def started() -> str:
            again = await AsyncClient(url).get(shed.name)
            await again.start(cold=True)
            return again.info.boot

        assert asyncio.run(started()) == "cold"


def test_many_in_a_row_and_at_once_leave_nothing(machine: Machine) -> None:
    """Every create, command and delete succeeds, no two guests draw the same random bytes, and the server holds no more
    than before.
    """

    def live(name: str) -> str:
        assert create(machine, name) == "warm"
        drawn = sh(machine, name, "od -An -tx1 -N16 /dev/urandom; cat /proc/sys/kernel/random/uuid")
        machine.shed("delete", "--force", name)
        return drawn

    def held() -> tuple[set[str], int, set[str]]:
        folders = {
            str(path) for place in ("instances", "uppers", "templates") for path in (machine.data / place).iterdir()
        }
        processes = [
            entry for entry in Path("/proc").iterdir() if entry.name.isdigit() and works_for(entry, machine.data)
        ]
        descriptors = set()
        for path in Path(f"/proc/{machine.server_pid()}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # it has just been closed
                descriptors.add(f"{path.name} {path.readlink()}")
        return descriptors, len(processes), {path for path in folders if not path.endswith(".lock")}

    drawn = [live("first")]
    before = held()
    drawn += [live(f"row-{number}") for number in range(IN_A_ROW)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        drawn += pool.map(live, [f"once-{number}" for number in range(AT_ONCE)])
    assert len({word for lines in drawn for word in lines.splitlines()}) == 2 * len(drawn)

    def as_before() -> bool:
        descriptors, processes, folders = held()
        fewer = processes <= before[1]  # the first one's last process may have ended a moment later
        return folders == before[2] and fewer and len(descriptors) <= len(before[0]) + IN_WAITING

    wait_until(as_before, seen=lambda: (before, held()))


def test_a_server_that_is_killed_while_it_restores(machine: Machine) -> None:
    """The next one undoes what was begun: there is no VM without a shed, what is listed works, and the names are free
    otherwise.
    """
    names = [f"restored-{number}" for number in range(4)]
    clients = [machine.start("create", name, "--image", "busybox", *SHAPE) for name in names]
    wait_until(lambda: list(machine.data.glob("instances/*restored-*/vm.json")))
    os.kill(machine.server_pid(), signal.SIGKILL)
    for client in clients:
        client.communicate(timeout=120)
    there = {shed["name"] for shed in json.loads(machine.shed("list", "--json"))}
    assert {name for name, client in zip(names, clients, strict=True) if client.returncode == 0} <= there
    wait_until(lambda: vms(machine) == there)  # it removes what was begun beside what it is asked for
    for name in names:
        if name not in there:
            assert create(machine, name) == "warm"
        assert sh(machine, name, "hostname") == f"{name}\n"
        machine.shed("delete", "--force", name)


def test_a_start_that_is_cut_while_it_restores(machine: Machine) -> None:
    """What it leaves is a machine that never goes on: it is ended, and the shed starts for the next command."""
    assert create(machine, "cut") == "warm"
    sh(machine, "cut", "echo kept > /root/kept")
    machine.shed("stop", "cut")
    record = machine.data / "instances/cut/vm.json"
    client = machine.start("start", "cut")
    wait_until(record.exists)
    pid = json.loads(record.read_text())["pid"]
    os.kill(pid, signal.SIGSTOP)
    kill_server(machine)
    client.communicate(timeout=120)
    with contextlib.suppress(ProcessLookupError):  # unless the server gave it up before its own end
        os.kill(pid, signal.SIGCONT)
    assert sh(machine, "cut", "cat /root/kept") == "kept\n"
    assert vms(machine) >= {"cut"}
    machine.shed("delete", "--force", "cut")


def kill_server(machine: Machine) -> None:
    """End the server as a crash does, and wait until it is gone."""
    server = machine.server_pid()
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: ended(server))


def vms(machine: Machine) -> set[str]:
    """Return the names of the sheds of all VMs that run on a machine."""
    entries = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit() and works_for(entry, machine.data)]
    words = [command_line(entry).split(b"\0") for entry in entries]
    return {line[line.index(b"-name") + 1].decode().removeprefix("shed-") for line in words if b"-name" in line}


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        place = random.randrange(path.stat().st_size)
        file.seek(place)
        was = file.read(1)[0]
        file.seek(place)
        file.write(bytes([was ^ 0x80]))  # no JSON any more, either


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a bit": flip,
    "cut": lambda path: os.truncate(path, random.randrange(path.stat().st_size)),
    "empty": lambda path: os.truncate(path, 0),
    "gone": Path.unlink,
}


def test_a_template_that_is_damaged_is_not_used(machine: Machine) -> None:
    """Any file, in any way: the create succeeds, and there is a whole template afterwards."""
    (template,) = templates(machine)
    name, damage = random.choice(["template.json", "state", "memory"]), random.choice(sorted(DAMAGES))
    DAMAGES[damage](template / name)
    assert create(machine, "damaged") == "cold", (name, damage)
    assert sh(machine, "damaged", "hostname") == "damaged\n"
    machine.shed("delete", "--force", "damaged")
    wait_until(lambda: templates(machine) == [template])
    check(template, thoroughly=True)


def test_a_template_that_lies_costs_one_cold_start(machine: Machine) -> None:
    """Memory that is damaged behind our back: the create succeeds all the same, says why it took long, and the template
    is made again.
    """
    (template,) = templates(machine)
    before = (template / "template.json").stat().st_mtime_ns
    memory = template / "memory"
    times = memory.stat()
    with memory.open("r+b") as file:
        for _ in range(times.st_size >> 20):
            file.write(b"\xa5" * (1 << 20))
    os.utime(memory, ns=(times.st_atime_ns, times.st_mtime_ns))
    done = machine.try_shed("create", "lied-to", "--image", "busybox", *SHAPE)
    assert done.returncode == 0, done.stderr
    assert b"restoring the virtual machine failed, so it is booted" in done.stderr
    assert sh(machine, "lied-to", "hostname") == "lied-to\n"
    wait_until(lambda: templates(machine) and (templates(machine)[0] / "template.json").stat().st_mtime_ns != before)
    machine.shed("delete", "--force", "lied-to")
    assert create(machine, "lied-to") == "warm"
    machine.shed("delete", "--force", "lied-to")


def test_a_server_that_is_killed_while_it_makes_a_template(machine: Machine) -> None:
    """The next one ends the VM that was to be saved, removes its folder, and can make another."""
    for template in templates(machine):
        shutil.rmtree(template)
    assert create(machine, "before") == "cold"
    making = machine.data / "templates"
    wait_until(lambda: list(making.glob(".vm-*.new/vm.json")))
    os.kill(machine.server_pid(), signal.SIGKILL)
    (record,) = making.glob(".vm-*.new/vm.json")
    pid = json.loads(record.read_text())["pid"]
    machine.shed("list")
    wait_until(lambda: not list(making.glob(".vm-*.new")))
    assert not command_line(Path(f"/proc/{pid}"))
    make(machine)
    assert create(machine, "after") == "warm"


def make(machine: Machine) -> None:
    """Make the templates of a shape by command, without and with a folder."""
    command = [sys.executable, "-m", "shed.server.main", "warm", "--shape", "1x256M", "--json"]
    made = json.loads(subprocess.run(command, env=machine.environment, stdout=subprocess.PIPE, check=True).stdout)
    assert len(made) == 2
    assert {template["name"] for template in made} <= {template.name for template in templates(machine)}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_making_one_by_command_can_be_ended(machine: Machine, number: signal.Signals) -> None:
    """It waits for whoever makes another one; then the VM that was to be saved ends with it, and the last line says
    so.
    """
    command = [sys.executable, "-m", "shed.server.main", "warm", "--shape", "1x272"]
    making = machine.data / "templates"
    with locked(making / LOCK):
        process = subprocess.Popen(command, env=machine.environment, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        assert process.stderr.readline() == "template for 1 cpus and 272 MB\n"
        assert process.stderr.readline() == "waiting for the server, which makes another one\n"
    with process:
        wait_until(lambda: list(making.glob(".vm-*.new/vm.json")))
        (record,) = making.glob(".vm-*.new/vm.json")
        pid = json.loads(record.read_text())["pid"]
        process.send_signal(number)
        assert (
            process.communicate()[1].splitlines()[-1] == "shed-server: interrupted"
        )  # a host without control groups is told before
    assert process.returncode == 130
    assert list(making.glob(".vm-*.new")) == []
    assert not command_line(Path(f"/proc/{pid}"))


@pytest.mark.root
def test_a_disk_that_fills_up_while_a_template_is_made(small_store: LayoutStore, tmp_path: Path) -> None:
    """It is given up and nothing of it stays; sheds go on coming up cold, and once there is room one is made."""
    copy_store(small_store, tmp_path / "data/images")
    folder = tmp_path / "data/templates"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700,size=600m", "tmpfs", folder], check=True)
    machine = Machine(tmp_path, way=EITHER)
    try:
        assert create(machine, "first") == "cold"
        wait_until(lambda: list(folder.glob(".vm-*.new/vm.json")))
        remount = "mount -o remount,size=$(($(stat -f -c '(%b-%f)*%S' $0) + (1 << 20))) $0"
        wait_until(
            lambda: subprocess.run(["sh", "-c", remount, folder], check=False).returncode == 0
        )  # it fills meanwhile
        wait_until(lambda: not list(folder.glob(".vm-*")))
        assert templates(machine) == []
        assert sh(machine, "first", "hostname") == "first\n"
        assert create(machine, "second") == "cold"
        subprocess.run(["mount", "-o", "remount,size=1200m", folder], check=True)  # two are made
        make(machine)
        assert create(machine, "third") == "warm"
        machine.end()
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.root
def test_a_server_of_an_ordinary_user(small_store: LayoutStore, request: pytest.FixtureRequest) -> None:
    """It makes a template that is its own, and restores from it."""
    folder = Path(tempfile.mkdtemp(prefix="shed-user-"))  # a jail's parent folders must be the user's to enter
    request.addfinalizer(lambda: shutil.rmtree(folder))
    shutil.copytree(small_store.root, folder / "data/images")
    machine = Machine(folder, way=EITHER)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, USER, USER)
    # Reading what root may read is left to it: the interpreter may be in root's home.
    machine.command = [
        *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"),
        *(
            "--inh-caps=-all,+dac_read_search",
            "--ambient-caps=-all,+dac_read_search",
            "--bounding-set=-all,+dac_read_search",
        ),
        *machine.command,
    ]
    try:
        assert create(machine, "first") == "cold"
        wait_until(lambda: templates(machine))
        assert create(machine, "second") == "warm"
        assert sh(machine, "second", "hostname") == "second\n"
        assert {
            path.stat().st_uid for path in (*templates(machine), Path(f"/proc/{machine.show('second')['pid']}"))
        } == {USER}
    finally:
        machine.end()
