"""Warm starts with everything real: what must differ differs, what is damaged is done without, and nothing of a user is in a template."""

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shed import AsyncClient, Client
from shed.oci.store import LayoutStore
from support.kit import copy_store
from support.machine import Machine, command_line

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]
SHAPE = ("--cpus", "1", "--memory", "256M")
IN_A_ROW, AT_ONCE = int(os.environ.get("SHED_TEST_IN_A_ROW", "3")), int(os.environ.get("SHED_TEST_AT_ONCE", "4"))
"""How often a shed is made and deleted; before a release 200, and 40."""
MARKER = "marker-q7x2"
"""Name of the shed after whose start the template is made."""


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


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
    """A machine with a template, made after its first shed; all tests share it, and leave a template."""
    root = tmp_path_factory.mktemp("warm")
    copy_store(base_store, root / "data/images")
    machine = Machine(root, warm=True)
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
    """Four sheds of three images from one template, and the cold one: random numbers, identity, clock, disks and cards are their own."""
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


def test_an_image_without_a_shell_is_restored_too(machine: Machine) -> None:
    """The template serves every image; who wants a boot gets one."""
    for name, way in (("bare", "warm"), ("cold", "cold")):
        assert create(machine, name, *([f"--{way}"] if way == "cold" else []), image="shell-less") == way
        assert machine.shed("exec", name, "--", "/hello") == "hello from a static program\n"
        machine.shed("delete", "--force", name)


def test_a_restored_shed_lives_as_any_other(machine: Machine) -> None:
    """A clean stop, a warm and a cold start, a server that is killed and one that adopts, a VM that is killed; files stay."""
    assert create(machine, "dev") == "warm"
    identity = sh(machine, "dev", "echo kept > /root/kept; cat /etc/machine-id /sys/class/net/e*/address")
    machine.shed("stop", "dev")
    assert start(machine, "dev") == "warm"
    assert sh(machine, "dev", "cat /etc/machine-id /sys/class/net/e*/address; cat /root/kept") == identity + "kept\n"
    machine.shed("stop", "dev")
    assert start(machine, "dev", "--cold") == "cold"
    assert sh(machine, "dev", "cat /etc/machine-id /sys/class/net/e*/address; cat /root/kept") == identity + "kept\n"
    machine.shed("stop", "dev")
    assert start(machine, "dev") == "warm"
    pid, server = machine.show("dev")["pid"], machine.server_pid()
    boot = sh(machine, "dev", "cat /proc/sys/kernel/random/boot_id")
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: not command_line(Path(f"/proc/{server}")))
    assert sh(machine, "dev", "cat /proc/sys/kernel/random/boot_id") == boot
    assert machine.show("dev")["pid"] == pid
    sh(machine, "dev", "sync")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: machine.show("dev")["status"] == "stopped")
    assert sh(machine, "dev", "cat /etc/machine-id /sys/class/net/e*/address; cat /root/kept") == identity + "kept\n"
    machine.shed("delete", "--force", "dev")


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
    """Every create, command and delete succeeds, no two guests draw the same random bytes, and the server holds no more than before."""

    def live(name: str) -> str:
        assert create(machine, name) == "warm"
        drawn = sh(machine, name, "od -An -tx1 -N16 /dev/urandom; cat /proc/sys/kernel/random/uuid")
        machine.shed("delete", "--force", name)
        return drawn

    def held() -> tuple[int, int, set[str]]:
        folders = {str(path) for place in ("instances", "uppers", "templates") for path in (machine.data / place).iterdir()}
        processes = [
            entry for entry in Path("/proc").iterdir() if entry.name.isdigit() and str(machine.data).encode() in command_line(entry)
        ]
        descriptors = len(list(Path(f"/proc/{machine.server_pid()}/fd").iterdir()))
        return descriptors, len(processes), {path for path in folders if not path.endswith(".lock")}

    drawn = [live("first")]
    before = held()
    drawn += [live(f"row-{number}") for number in range(IN_A_ROW)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        drawn += pool.map(live, [f"once-{number}" for number in range(AT_ONCE)])
    assert len({word for lines in drawn for word in lines.splitlines()}) == 2 * len(drawn)
    wait_until(lambda: held()[1:] == before[1:])
    assert held()[0] <= before[0]


def test_a_template_that_lies_costs_one_cold_start(machine: Machine) -> None:
    """Memory that is damaged behind our back: the create succeeds all the same, says why it took long, and the template is made again."""
    (template,) = templates(machine)
    before = (template / "template.json").stat().st_mtime_ns
    memory = template / "memory"
    times = memory.stat()
    with memory.open("r+b") as file:
        for _ in range(times.st_size >> 20):
            file.write(b"\xa5" * (1 << 20))
    os.utime(memory, ns=(times.st_atime_ns, times.st_mtime_ns))
    done = machine.try_shed("create", "dev", "--image", "busybox", *SHAPE)
    assert done.returncode == 0, done.stderr
    assert b"restoring the virtual machine failed, so it is booted" in done.stderr
    assert sh(machine, "dev", "hostname") == "dev\n"
    wait_until(lambda: templates(machine) and (templates(machine)[0] / "template.json").stat().st_mtime_ns != before)
    machine.shed("delete", "--force", "dev")
    assert create(machine, "dev") == "warm"
    machine.shed("delete", "--force", "dev")


def test_a_server_that_is_killed_while_it_makes_a_template(machine: Machine) -> None:
    """The next one ends the VM that was to be saved, removes its folder, and makes another."""
    for template in templates(machine):
        shutil.rmtree(template)
    assert create(machine, "dev") == "cold"
    making = machine.data / "templates"
    wait_until(lambda: list(making.glob(".vm-*.new/vm.json")))
    os.kill(machine.server_pid(), signal.SIGKILL)
    (record,) = making.glob(".vm-*.new/vm.json")
    pid = json.loads(record.read_text())["pid"]
    machine.shed("list")
    wait_until(lambda: not list(making.glob(".vm-*.new")))
    assert not command_line(Path(f"/proc/{pid}"))
    machine.shed("delete", "--force", "dev")
    assert create(machine, "dev") == "cold"
    machine.shed("delete", "--force", "dev")
    wait_until(lambda: templates(machine))


def test_a_workspace_is_of_another_shape(machine: Machine, tmp_path: Path) -> None:
    """A machine that shares a folder has a template of its own; the folder is the shed's, not the one that was there when it was made."""
    (tmp_path / "from-host").write_text("host\n")
    assert create(machine, "a", "--local-dir", str(tmp_path)) == "cold"
    wait_until(lambda: len(templates(machine)) == 2)
    assert create(machine, "b", "--local-dir", str(tmp_path)) == "warm"
    assert sh(machine, "b", "cat /workspace/from-host; echo guest > /workspace/from-guest") == "host\n"
    assert (tmp_path / "from-guest").read_text() == "guest\n"
    assert (tmp_path / "from-guest").stat().st_uid == tmp_path.stat().st_uid
    for name in "ab":
        machine.shed("delete", "--force", name)
