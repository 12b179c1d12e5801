"""The SSH front of a real server with the real OpenSSH client; the VMs are the fake backend's."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.ports import free_port
from support.tools.ssh import TIMEOUT, output_of
from support.tools.ssh_host import Host
from support.waiting import wait_until

Make = Callable[..., Host]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Return what makes a host of the test's own."""
    made: list[Host] = []

    def make(**settings: Any) -> Host:
        made.append(Host(tmp_path, **settings))
        return made[-1]

    yield make
    for host in made:
        host.end()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with the shed ``dev``, for tests that leave it as it was."""
    host = Host(tmp_path_factory.mktemp("host"))
    try:
        host.create("dev")
        yield host
    finally:
        host.end()


def test_output_errors_and_exit_status(host: Host) -> None:
    """Of a raw command, which a shell takes apart."""
    done = host.ssh.run("dev@shed", "echo out | tr o O; echo err >&2; exit 7", code=7)
    assert (done.stdout, done.stderr) == (b"Out\n", b"err\n")


def test_a_client_whose_reader_has_left(host: Host, tmp_path: Path) -> None:
    """The command's writes fail, as by sshd; what it does then is still done, and how it ends is told."""
    words = host.ssh.command("dev@shed", f"yes; echo ended with $? >{tmp_path}/said; exit 3")
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.read(2) == b"y\n"
        client.stdout.close()  # as `head -1` does
        assert client.wait(TIMEOUT) == 3
    assert (tmp_path / "said").read_text() == "ended with 141\n"


@pytest.mark.parametrize("name", ["nope", "_api", "_bootstrap", "No Shed", "x" * 200])
def test_there_is_no_such_shed(host: Host, name: str) -> None:
    """One line, exit status 1, whatever the name; reserved ones are no sheds."""
    done = host.ssh.run("-l", name, "shed", "true", code=1)
    assert done.stderr == f"Error: shed '{name}' not found\n".encode()


def test_ten_clients_start_one_shed(host: Host) -> None:
    """None is turned away, those who wait are told for what, and there is one VM."""
    host.server.request("POST", "/api/sheds/dev/stop")
    clients = [host.ssh.start("dev@shed", f"echo {number}; cat") for number in range(10)]
    ended = output_of(clients)
    assert [(out, code) for out, _, code in ended] == [(b"%d\n" % number, 0) for number in range(10)], ended
    assert b"Starting shed 'dev'..." in {
        errors.partition(b"\n")[0] for _, errors, _ in ended
    }  # profiles of this machine may speak too
    assert len(host.world.machines()) == 1


def test_the_host_key_is_made_once(host: Host) -> None:
    """Private, told by the API, and the one that clients see."""
    host.ssh.run("dev@shed", "true")
    told = str(host.get("/api/ssh-host-key")["host_key"])
    assert told in (host.ssh.folder / "known_hosts").read_text()
    key = host.world.paths.data / "ssh_host_ed25519_key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert (
        subprocess.run(["ssh-keygen", "-y", "-f", key], capture_output=True, text=True, check=True).stdout.split()[:2]
        == told.split()
    )
    assert host.get("/api/info")["ssh_port"] == host.ssh.port


def test_a_port_of_the_shed(host: Host) -> None:
    """Bytes go both ways, and the end of one half is not the end of the other."""
    data = os.urandom(3_000_000)
    assert host.ssh.run("-W", "localhost:7", "dev@shed", stdin=data).stdout == data
    for target, why in (
        ("localhost:8", b"connection refused"),
        ("example.com:7", b"only the shed's own ports"),
        ("[::]:7", b"only"),
    ):
        assert why in host.ssh.run("-v", "-W", target, "dev@shed", code=255).stderr


def test_a_client_may_leave_right_after_its_last_byte(host: Host) -> None:
    """What it sent arrives in any case, and nothing hangs."""
    port = free_port()
    forwarding = host.ssh.start("-N", "-L", f"{port}:localhost:7", "dev@shed")
    try:
        while True:
            try:
                client = socket.create_connection(("127.0.0.1", port))
                break
            except ConnectionRefusedError:
                time.sleep(0.02)
        with client:
            client.sendall(b"x" * 100_000)
            assert client.recv(100_000, socket.MSG_WAITALL) == b"x" * 100_000
    finally:
        forwarding.terminate()
        output_of([forwarding])


def test_memory_does_not_follow_the_traffic(host: Host) -> None:
    """A command that reads nothing, and a client that reads nothing, hold the other side back."""
    host.ssh.run("dev@shed", "true")
    before = host.memory()
    with Path("/dev/zero").open("rb") as endless:
        deaf = host.ssh.start("dev@shed", "echo up; exec sleep 60", stdin=endless.fileno())
    stuck = host.ssh.start("dev@shed", "exec head -c 300000000 /dev/zero")
    assert deaf.stdout is not None
    assert stuck.stdout is not None
    assert deaf.stdout.read(3) == b"up\n"
    assert len(stuck.stdout.read(1_000_000)) == 1_000_000
    through = host.ssh.run("dev@shed", "cat", stdin=bytes(80_000_000))
    assert len(through.stdout) == 80_000_000
    assert host.memory() - before < 40_000_000
    for client in (deaf, stuck):
        client.kill()
    output_of([deaf, stuck])


def test_only_listed_keys(make: Make) -> None:
    """From the file as it is at that moment; a key with a restriction that is not kept here is none."""
    host = make()
    host.create("dev")
    path, line = host.ssh.key("ours")
    other, other_line = host.ssh.key("other")
    keys = host.ssh.folder / "keys"
    keys.write_text(f"# who may\n{line}\n")
    host.server.end()
    host.configure(ssh_port=host.ssh.port, ssh={"authorized_keys": str(keys)})
    host.start()
    host.revoke(host.ssh.public)
    assert host.ssh.run("-i", str(path), "dev@shed", "echo in").stdout == b"in\n"
    for words in (["-i", str(other)], []):
        assert b"Permission denied (publickey" in host.ssh.run(*words, "dev@shed", "true", code=255).stderr
    keys.write_text(f"restrict {line}\n{other_line}\n")
    host.ssh.run("-i", str(path), "dev@shed", "true", code=255)
    host.ssh.run("-i", str(other), "dev@shed", "true")
    keys.write_text(f'command="echo forced $SSH_ORIGINAL_COMMAND",no-port-forwarding {line}\n')
    assert host.ssh.run("-i", str(path), "dev@shed", "echo in").stdout.startswith(b"forced")
    host.ssh.run("-i", str(path), "-W", "localhost:7", "dev@shed", code=255)
    keys.write_text(f"{line}\n")
    host.ssh.run("-i", str(path), "dev@shed", "true")
    keys.chmod(0o666)  # then everybody could let himself in
    assert b"Permission denied (publickey" in host.ssh.run("-i", str(path), "dev@shed", "true", code=255).stderr
    keys.unlink()
    assert b"Permission denied (publickey" in host.ssh.run("-i", str(path), "dev@shed", "true", code=255).stderr


@contextlib.contextmanager
def usual_port() -> Iterator[None]:
    """Have port 2222 in use: by whoever runs beside this test, and by us as soon as it is free."""
    tried, over = threading.Event(), threading.Event()

    def hold() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", 2222)):
                tried.set()
                over.wait()
            tried.set()
            time.sleep(0.001)

    thread = threading.Thread(target=hold)
    thread.start()
    tried.wait()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_port_that_is_in_use(make: Make) -> None:
    """One that was asked for is an error; for the usual one another is taken, and stays over restarts."""
    host = make()
    host.server.end()
    with socket.create_server(("127.0.0.1", host.ssh.port)):
        ended = subprocess.run(
            [sys.executable, "-m", "support.servers.server_process", str(host.world.paths.data.parent)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
            check=False,
        )
        assert ended.stderr == f"port {host.ssh.port} on 127.0.0.1 is in use\n"
    with usual_port():
        host.configure()
        host.start()
        port = host.get("/api/info")["ssh_port"]
        assert port != 2222
    host.server.end()
    host.start()
    assert host.get("/api/info")["ssh_port"] == port
    host.server.end()
    with socket.create_server(("127.0.0.1", port)), usual_port():
        host.start()
        assert host.get("/api/info")["ssh_port"] not in {port, 2222}


def test_a_server_that_is_killed(make: Make) -> None:
    """Its clients notice; the VM stays, and the next server lets them in at once."""
    host = make()
    host.create("dev")
    machines = host.world.machines()
    client = host.ssh.start("dev@shed", "echo up; exec sleep 100")
    assert client.stdout is not None
    assert client.stdout.read(3) == b"up\n"
    host.server.end(signal.SIGKILL)
    assert output_of([client])[0][2] == 255
    host.start()
    assert host.ssh.run("dev@shed", "echo again").stdout == b"again\n"
    assert host.world.machines() == machines


def test_a_machine_that_dies(make: Make) -> None:
    """Its clients are told, in a line."""
    host = make()
    host.create("dev")
    client = host.ssh.start("dev@shed", "echo up; exec cat /dev/zero")
    assert client.stdout is not None
    assert client.stdout.read(3) == b"up\n"
    host.world.kill_machines()
    _, errors, code = output_of([client])[0]
    assert (code, errors[:7], errors.count(b"\n")) == (255, b"Error: ", 1)


def test_a_start_that_fails(make: Make) -> None:
    """The reason, in a line."""
    host = make()
    host.create("dev")
    host.server.request("POST", "/api/sheds/dev/stop")
    host.server.end()
    (host.world.paths.data.parent / "faults").write_text("no-root")
    host.start()
    failed = host.ssh.run("dev@shed", "true", code=255)
    assert failed.stderr.startswith(b"Starting shed 'dev'...\nError: mounting the root file system failed")
    assert failed.stderr.count(b"\n") == 2


def test_a_start_goes_on_without_who_asked_for_it(make: Make) -> None:
    """A client that does not wait leaves a shed that is running, and no command."""
    host = make()
    host.create("dev")
    host.server.request("POST", "/api/sheds/dev/stop")
    client = host.ssh.start("dev@shed", "touch should-not-be")
    assert client.stderr is not None
    assert client.stderr.readline() == b"Starting shed 'dev'...\n"
    client.kill()
    output_of([client])
    wait_until(lambda: host.get("/api/sheds/dev")["status"] == "running")
