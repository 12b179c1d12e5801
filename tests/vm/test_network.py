"""Ports, the Python SDK and its examples in a real VM: every byte crosses client, server, QEMU and agent."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import runpy
import signal
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from shed import AsyncClient, Client, Shed, ShedError
from shed.client.aio.shed import AsyncShed
from shed.client.sync.shed import RUNTIME
from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.vms.machine import Machine
from support.waiting import wait_until

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]
EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE = 120


@pytest.fixture(scope="module")
def machine(way: str, small_store: LayoutStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine whose server is this process's local one, too."""
    root = tmp_path_factory.mktemp("network")
    machine = Machine(root, way=way)
    copy_store(small_store, machine.data / "images")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SHED_SERVER", raising=False)
        for name in ("SHED_DATA_DIR", "SHED_RUNTIME_DIR", "HOME"):
            patch.setenv(name, machine.environment[name])
        yield machine
    machine.end()


@pytest.fixture(scope="module")
def dev(machine: Machine) -> Shed:
    """The shed of all tests, with an echo on port 7 and an endless stream on port 9."""
    dev = Client().create("dev", image="busybox")
    serve(dev)
    return dev


def test_a_file_that_is_not_there(dev: Shed) -> None:
    """The error names the file and says what is wrong with it."""
    with pytest.raises(ShedError, match=r"^/tmp/nothing: No such file or directory\n"):
        dev.read_file("/tmp/nothing")


def serve(dev: Shed) -> None:
    """Start what listens in the shed; it outlives the command that starts it."""
    for port, program in ((7, "cat"), (9, "cat /dev/zero")):
        dev.exec(f"{RUNTIME} nc -ll -p {port} -e {program} < /dev/null > /dev/null 2>&1 &", user="root", check=True)
        wait_until(partial(answers, dev, port))


def answers(dev: Shed, port: int) -> bool:
    with contextlib.suppress(Exception), dev.connect(port):
        return True
    return False


@pytest.fixture
def no_new_sheds(dev: Shed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples that make a shed get the one that is there: a boot for each would take minutes."""

    def create(self: Client, **_: object) -> Shed:
        return self.get("dev")

    async def create_async(self: AsyncClient, **_: object) -> AsyncShed:
        return await self.get("dev")

    monkeypatch.setattr(Client, "create", create)
    monkeypatch.setattr(AsyncClient, "create", create_async)


def run_example(name: str) -> str:
    """Run an example as a program and return what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return printed.getvalue()


SHOWN = {
    "hello.py": ["Linux "],
    "run_script.py": ["exit code: 3", "stdout: hello world from dev", "stderr: this is an error"],
    "stream_output.py": ["-> step 1\n-> step 2\n-> step 3", "exit code: 0"],
    "pipe_stdin.py": ["largest: 99999", "lines after it: 99999"],
    "files.py": ["note.txt ['made', 'in', 'a', 'shed']", "sorted.txt ['1', '2', '3']", "read back: made in a shed"],
    "forward_port.py": ["hello from the shed"],
    "parallel.py": ["[4, 9]", "sheds of ours left: 0"],
    "agent_loop.py": ["print me", "exit code 1: cat", "given up: 'sh' took longer than 5 s", "still here"],
    "repl.py": ["x is 42", "exit code: 0"],
    "clean_up.py": ["COMMAND_FAILED: 'sh' returned 42: disk on fire (exit code 42)", "SHED_NOT_FOUND"],
}


@pytest.mark.parametrize("name", sorted(set(SHOWN) - {"clean_up.py"}))
@pytest.mark.usefixtures("no_new_sheds")
def test_examples(name: str) -> None:
    """Each runs and prints what it is there to show."""
    printed = run_example(name)
    for text in SHOWN[name]:
        assert text in printed, printed


def test_an_example_with_a_shed_of_its_own(machine: Machine, dev: Shed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made, used, and gone although its block failed."""
    machine.shed("image", "tag", "busybox", "base")
    printed = run_example("clean_up.py")
    for text in SHOWN["clean_up.py"]:
        assert text in printed, printed
    assert [each.name for each in Client().list()] == ["dev"]


def test_every_example_is_run() -> None:
    """And none is long."""
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SHOWN)
    assert all(len(path.read_text().splitlines()) < 40 for path in EXAMPLES.glob("*.py"))


def test_a_large_transfer_both_ways(dev: Shed) -> None:
    """Through a forwarded port, with the client's end passed on: every byte comes back, once and in order."""
    data = os.urandom(1 << 20) * 12
    with dev.forward(7) as port, socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:

        def feed() -> None:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

        feeding = threading.Thread(target=feed)
        feeding.start()
        came = hashlib.sha256()
        size = 0
        while piece := sock.recv(1 << 20):
            came.update(piece)
            size += len(piece)
        feeding.join(PATIENCE)
    assert (size, came.digest()) == (len(data), hashlib.sha256(data).digest())


def pouring(dev: Shed) -> bool:
    """Say whether somebody in the shed pours."""
    return "cat /dev/zero" in dev.exec([RUNTIME, "ps"]).text.replace("nc -ll -p 9 -e cat /dev/zero", "")


def drain(sock: socket.socket) -> None:
    """Read until there is an end, of whatever kind."""
    deadline = time.monotonic() + PATIENCE
    sock.settimeout(PATIENCE)
    with contextlib.suppress(ConnectionResetError):
        while sock.recv(1 << 20):
            assert time.monotonic() < deadline, "it goes on"


def test_a_client_that_goes_ends_the_program_in_the_shed(dev: Shed) -> None:
    """In the middle of a download that it does not even read."""
    with dev.connect(9) as sock:
        assert sock.recv(1) == b"\0"
        assert pouring(dev)
    wait_until(lambda: not pouring(dev))


def test_a_program_that_is_killed_ends_the_client(dev: Shed) -> None:
    """Its connection ends; others to the shed go on."""
    with dev.connect(9) as sock, dev.connect(7) as other:
        other.settimeout(PATIENCE)
        assert sock.recv(1) == b"\0"
        (program,) = [
            line.split()[0]
            for line in dev.exec([RUNTIME, "ps"]).text.splitlines()
            if line.split()[2:4] == ["cat", "/dev/zero"]
        ]
        dev.exec(f"kill -9 {program}", user="root", check=True)
        drain(sock)
        other.sendall(b"still there")
        assert other.recv(100) == b"still there"


def gone(pid: int) -> bool:
    """Say whether a process has ended, and closed all that it had open: that is when the last of its threads has."""
    states = []
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            states.append(stat.read_text().rpartition(")")[2].split()[0])
    return set(states) <= {"Z", "X"}


def test_a_server_that_is_killed(machine: Machine, dev: Shed) -> None:
    """Clients notice, so does the program in the shed; the next server finds the shed, and new connections work."""
    with dev.connect(9) as sock:
        assert sock.recv(1) == b"\0"
        server = machine.server_pid()
        os.kill(server, signal.SIGKILL)
        drain(sock)
    wait_until(lambda: gone(server))
    wait_until(lambda: not pouring(dev))
    with dev.connect(7) as sock:
        sock.sendall(b"hello")
        assert sock.recv(5) == b"hello"


def test_a_vm_that_is_killed(dev: Shed) -> None:
    """Clients notice; what it ran is gone with it, and it can be started again."""
    with dev.connect(9) as sock:
        assert sock.recv(1) == b"\0"
        os.kill(dev.refresh().info.pid, signal.SIGKILL)
        drain(sock)
    wait_until(lambda: dev.refresh().status == "stopped")
