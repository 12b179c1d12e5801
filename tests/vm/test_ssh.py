"""The OpenSSH client, and others, in real sheds: what crosses client, front, QEMU and agent."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncssh
import paramiko
import pytest

from shed.oci.store import LayoutStore
from shed.server.ssh.limits import MOST_LISTENERS
from support.images.kit import copy_store
from support.ports import free_port
from support.tools.ssh import TIMEOUT, Ssh, output_of
from support.tools.terminal import Terminal
from support.vms.machine import Machine as UserMachine
from support.waiting import wait_until

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]
SHED = [sys.executable, "-m", "shed.cli.main"]
IMAGES = {"dev": "base", "bare": "busybox", "none": "shell-less"}
"""Sheds and their images: a Debian; a busybox without bash, scp and sftp-server; two static programs without so much as
a shell.
"""


class Machine:
    """A machine with the sheds of `IMAGES`."""

    def __init__(self, root: Path, way: str) -> None:
        self.ssh = Ssh(root / "ssh", free_port())
        self.user = UserMachine(root, way=way, settings=f"ssh_port: {self.ssh.port}\n")
        self.env = self.user.environment
        self.root = root
        self.shed("ssh-key", "add", self.ssh.public)

    def shed(self, *words: str) -> str:
        """Run the command line and return what it prints."""
        return subprocess.run(
            [*SHED, *words], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
        ).stdout

    def sh(self, command: str, *, name: str = "dev", stdin: bytes = b"") -> str:
        """Run a command over SSH and return what it prints."""
        return self.ssh.run(f"{name}@shed", command, stdin=stdin).stdout.decode()

    def listens(self, port: int) -> bool:
        """Whether something listens on a port of ``dev``; 0A is the state of that, in proc_net_tcp(5)."""
        return re.search(rf":{port:04X} 0+:0+ 0A ", self.sh("cat /proc/net/tcp /proc/net/tcp6")) is not None


@pytest.fixture(scope="module")
def machine(way: str, base_store: LayoutStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """The machine, for all tests: none leaves a process in a shed."""
    root = tmp_path_factory.mktemp("machine")
    copy_store(base_store, root / "data/images")
    machine = Machine(root, way)
    try:
        for name, image in IMAGES.items():
            machine.shed("create", name, "--image", image)
        yield machine
    finally:
        machine.user.end()


@pytest.mark.parametrize("name", ["dev", "bare"])
def test_outputs_and_exit_status(machine: Machine, name: str) -> None:
    """With bash, and in an image that has none."""
    done = machine.ssh.run(f"{name}@shed", "echo $((6 * 7)); cat; echo err >&2; exit 9", stdin=b"in", code=9)
    assert (done.stdout, done.stderr) == (b"42\nin", b"err\n")


def test_a_raw_command_is_for_the_login_shell(machine: Machine) -> None:
    """Every kind of quote, substitution and character means what it means there, and profiles were read."""
    machine.sh("echo export FROM_PROFILE=yes | sudo tee /etc/profile.d/test.sh")
    command = (
        "echo $FROM_PROFILE \"$HOME\" '$HOME' $(echo sub) `echo tick` a\\;b | cat; printf '%s\\n' 'ü😀' "
        "'two\nlines' \"it's\""
    )
    assert machine.sh(command) == "yes /home/shed $HOME sub tick a;b\nü😀\ntwo\nlines\nit's\n"


def test_the_environment(machine: Machine) -> None:
    """The client's variables, the shed's, and the user's own; set -u finds none missing."""
    command = 'set -u; echo "$USER $HOME $SHELL $SHED_NAME $LC_TIME $OURS"; pwd; env | grep -c ^TERM='
    out = machine.ssh.run("-o", "SetEnv=LC_TIME=de_DE.UTF-8 OURS=a=b", "dev@shed", command).stdout
    assert out == b"shed /home/shed /bin/bash dev de_DE.UTF-8 a=b\n/home/shed\n1\n"


async def test_signals_both_ways(machine: Machine) -> None:
    """One that the client sends, and one that ends the command; a command line cannot hold NUL."""
    client = await asyncssh.connect(
        "127.0.0.1",
        machine.ssh.port,
        username="dev",
        known_hosts=None,
        config=None,
        client_keys=[str(machine.ssh.private)],
    )
    async with client:
        process = await client.create_process("trap 'echo got; exit 5' USR1; echo up; while :; do sleep 0.1; done")
        assert await process.stdout.readline() == "up\n"
        process.send_signal("USR1")
        assert await process.stdout.readline() == "got\n"
        assert (await process.wait()).exit_status == 5
        killed = await client.run("kill -KILL $$")
        assert killed.exit_signal is not None
        assert killed.exit_signal[0] == "KILL"
        refused = await client.run("echo a\0b")
        assert (refused.exit_status, str(refused.stderr).count("\n")) == (125, 1)


def test_a_reader_that_leaves(machine: Machine) -> None:
    """As in ``ssh shed-dev yes | head -1``: the command's next write fails, and what it does then is done and told."""
    words = machine.ssh.command("dev@shed", "yes; echo $? >/tmp/ended; exit 3")
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.read(2) == b"y\n"
        client.stdout.close()
        assert client.wait(TIMEOUT) == 3
    assert machine.sh("cat /tmp/ended; rm /tmp/ended") == "141\n"


def test_output_is_waited_for(machine: Machine) -> None:
    """Of whoever holds it, as by sshd, and with the exit status of the command."""
    done = machine.ssh.run("dev@shed", "(sleep 3; echo late) & echo now; exit 4", code=4)
    assert done.stdout == b"now\nlate\n"


def test_a_terminal(machine: Machine) -> None:
    """A login shell with the client's terminal: kind, size, its changes, modes, ctrl-C, the exit status of the last
    command.
    """
    terminal = Terminal()
    try:
        attributes = termios.tcgetattr(terminal.line)
        attributes[6][termios.VERASE] = b"\x08"
        termios.tcsetattr(terminal.line, termios.TCSANOW, attributes)
        process = terminal.start(*machine.ssh.command("dev@shed"))
        terminal.read_until(b"$ ")
        terminal.type(b"shopt -q login_shell && stty size; echo $TERM; stty -a | grep -o 'erase = ^H'\r")
        terminal.read_until(b"31 97\r\nxterm-kitty\r\nerase = ^H\r\n")
        terminal.resize(50, 120)
        process.send_signal(signal.SIGWINCH)
        terminal.type(b"until stty size | grep '^50 120'; do sleep 0.1; done\r")
        terminal.read_until(b"\r\n50 120\r\n")
        terminal.read_until(b"$ ")
        terminal.type(b"bash -c 'echo up; exec sleep 4713'\r")
        terminal.read_until(b"\r\nup\r\n")
        terminal.type(b"\x03")
        terminal.read_until(b"$ ")
        terminal.type(b"(exit 9)\r\x04")
        assert process.wait(TIMEOUT) == 9
    finally:
        terminal.close()


def test_without_a_terminal_bytes_stay(machine: Machine) -> None:
    """All 256 of them, both ways, and a hundred megabytes out, complete before the exit status."""
    data = bytes(range(256)) * 300
    assert machine.ssh.run("dev@shed", "cat", stdin=data).stdout == data
    done = machine.ssh.run("dev@shed", "head -c 104857600 /dev/zero; echo end; exit 3", code=3)
    assert (len(done.stdout), done.stdout[-5:]) == (104857604, b"\0end\n")


@pytest.mark.parametrize("name", IMAGES)
def test_sftp_in_any_image(machine: Machine, name: str, tmp_path: Path) -> None:
    """With the image's server, or the one that every guest brings along; it begins in the user's home."""
    (tmp_path / "data").write_bytes(os.urandom(1 << 20))
    batch = f"pwd\nput {tmp_path}/data up\nrename up there\nls -l there\nget there {tmp_path}/back\nrm there\n"
    out = machine.ssh.run("-q", "-b", "-", f"{name}@shed", program="sftp", stdin=batch.encode()).stdout.decode()
    assert f"Remote working directory: {'/home/shed' if name == 'dev' else '/root'}\n" in out
    assert (tmp_path / "back").read_bytes() == (tmp_path / "data").read_bytes()


@pytest.mark.parametrize("name", ["dev", "bare"])
@pytest.mark.parametrize("protocol", ["-s", "-O"])
def test_scp_in_both_protocols(machine: Machine, name: str, protocol: str, tmp_path: Path) -> None:
    """A folder there and a pattern back, also where the image has no scp."""
    source = tmp_path / "folder"
    source.mkdir()
    for number in range(3):
        (source / f"file {number}").write_bytes(os.urandom(100_000 * number))
    machine.ssh.run(protocol, "-rp", str(source), f"{name}@shed:copy{protocol}", program="scp")
    (tmp_path / "back").mkdir()
    machine.ssh.run(protocol, f"{name}@shed:copy{protocol}/f*", str(tmp_path / "back"), program="scp")
    assert {path.name: path.read_bytes() for path in (tmp_path / "back").iterdir()} == {
        path.name: path.read_bytes() for path in source.iterdir()
    }


def test_rsync_of_ten_thousand_files(machine: Machine, tmp_path: Path) -> None:
    """And a second run finds nothing to do."""
    for number in range(10_000):
        folder = tmp_path / f"many/{number % 100}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(number)).write_bytes(b"%d" % number)
    rsync = ["rsync", "-a", "-e", " ".join(machine.ssh.command()), f"{tmp_path}/many/", "dev@shed:many/"]
    subprocess.run(rsync, check=True)
    assert machine.sh("find many -type f | wc -l; cat many/77/9977") == "10000\n9977"
    assert subprocess.run([*rsync, "-i", "--checksum"], check=True, capture_output=True).stdout == b""


def test_git(machine: Machine, tmp_path: Path) -> None:
    """Clone from the shed, and push to it."""
    machine.sh("git init -q --bare repository.git")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-C", str(tmp_path)]
    env = {**machine.env, "GIT_SSH_COMMAND": " ".join(machine.ssh.command())}
    subprocess.run([*git, "clone", "-q", "dev@shed:repository.git", "."], env=env, check=True, capture_output=True)
    (tmp_path / "file").write_text("pushed\n")
    for words in (["add", "file"], ["commit", "-qm", "first"], ["push", "-q", "origin", "HEAD:refs/heads/main"]):
        subprocess.run([*git, *words], env=env, check=True)
    assert machine.sh("git -C repository.git show main:file") == "pushed\n"


def test_paramiko(machine: Machine) -> None:
    """Another client altogether: a command, sftp and a forward on one connection."""
    with paramiko.SSHClient() as client:
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect(
            "127.0.0.1",
            machine.ssh.port,
            "dev",
            pkey=paramiko.Ed25519Key(filename=str(machine.ssh.private)),
            look_for_keys=False,
            allow_agent=False,
        )
        stdin, stdout, stderr = client.exec_command("cat; echo err >&2; exit 4")
        stdin.write(b"through paramiko")
        stdin.channel.shutdown_write()
        assert (stdout.read(), stderr.read(), stdout.channel.recv_exit_status()) == (b"through paramiko", b"err\n", 4)
        with client.open_sftp() as sftp, sftp.open("by-paramiko", "wb") as file:
            file.write(b"x" * 300_000)
        assert machine.sh("wc -c <by-paramiko") == "300000\n"


def test_forwards_and_jumps(machine: Machine) -> None:
    """-R brings the front into the shed: back through -L it is reached from here, and through -J a shed behind a
    shed.
    """
    local, there = free_port(), 2200
    words = ["-N", "-L", f"{local}:localhost:{there}", "-R", f"{there}:127.0.0.1:{machine.ssh.port}", "dev@shed"]
    forwarding = machine.ssh.start("-o", "ExitOnForwardFailure=yes", *words)
    try:
        wait_until(lambda: machine.listens(there))
        assert (
            machine.ssh.run("-p", str(local), "bare@shed", "echo there and back; cat", stdin=b"!").stdout
            == b"there and back\n!"
        )
        jump = ["-J", f"dev@127.0.0.1:{machine.ssh.port}", "-p", str(there)]
        assert machine.ssh.run(*jump, "bare@shed", "echo jumped; exit 3", code=3).stdout == b"jumped\n"
    finally:
        forwarding.terminate()
        output_of([forwarding])
    wait_until(lambda: not machine.listens(there))


def test_listeners_of_one_connection(machine: Machine) -> None:
    """So many and no more, and none is left when the client leaves; 6aee119 takes any number."""
    words = [word for number in range(MOST_LISTENERS + 3) for word in ("-R", f"0:localhost:{number + 1}")]
    wait = (
        f"for i in $(seq 300); do [ $(grep -c ' 0100007F:.* 0A ' /proc/net/tcp) -ge {MOST_LISTENERS} ] && break; "
        "sleep 0.1; done"
    )
    client = machine.ssh.start(
        "-o", "LogLevel=INFO", *words, "dev@shed", f"{wait}; cat /proc/net/tcp; echo up; read line"
    )
    assert client.stdout is not None
    assert client.stdin is not None
    listening = list(iter(client.stdout.readline, b"up\n"))
    assert sum(b" 0100007F:" in line and b" 0A " in line for line in listening) == MOST_LISTENERS
    client.stdin.close()
    client.stdin = None
    assert output_of([client])[0][1].count(b"remote port forwarding failed for listen port 0") == 3
    wait_until(lambda: not re.search(r" 0100007F:\w+ 0+:0+ 0A ", machine.sh("cat /proc/net/tcp")))


def test_a_guest_gets_into_no_shed(machine: Machine, tmp_path: Path) -> None:
    """Neither with a key nor without, and it keeps nobody out: in a home without any key `ssh shed-dev` works, after
    one command.

    6aee119 lets a guest log in to all other sheds.
    """
    there = f"-p {machine.ssh.port} bare@10.0.2.2 echo inside another shed"
    ask = f"ssh -o BatchMode=yes -o ConnectTimeout=20 -o StrictHostKeyChecking=no {there}; echo $?"
    attack = (
        "rm -f ~/k; ssh-keygen -q -t ed25519 -N '' -f ~/k; for key in none ~/k; do "
        f"{ask.replace('ssh ', 'ssh -i $key ', 1)}; done 2>&1"
    )
    said = machine.sh(attack)
    assert "inside" not in said
    assert said.count("255\n") == 2
    if "Permission denied" in said:
        log = machine.root / "data/logs/server.log"
        wait_until(
            lambda: re.search(r"no login to bare from \S+ \(the guest of shed dev\): refused SHA256:", log.read_text())
        )
    flood = (
        f"for i in {{1..250}}; do exec {{f}}<>/dev/tcp/10.0.2.2/{machine.ssh.port} || break; done 2>&1; echo "
        "open; read line"
    )
    flooding = machine.ssh.start("dev@shed", flood)
    try:
        assert flooding.stdout is not None
        while flooding.stdout.readline() != b"open\n":
            pass
        env = {**machine.env, "HOME": str(tmp_path)}
        subprocess.run(
            [*SHED, "ssh-config", "--install"], env=env, stdin=subprocess.DEVNULL, check=True, stdout=subprocess.DEVNULL
        )
        words = [
            "ssh",
            "-F",
            str(tmp_path / ".ssh/config"),
            "-o",
            "BatchMode=yes",
            "-o",
            "IdentityAgent=none",
            "shed-bare",
            "echo in",
        ]
        assert (
            subprocess.run(words, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout == b"in\n"
        )
    finally:
        flooding.terminate()
        output_of([flooding])


def test_only_the_shed_itself_is_forwarded_to(machine: Machine) -> None:
    """Neither other machines nor, by its name for the host, this one; and nothing listens on port 1."""
    for target in ("example.com:80", "10.0.2.2:22", "localhost:1"):
        failed = machine.ssh.run("-o", "LogLevel=INFO", "-W", target, "dev@shed", code=255)
        assert failed.stderr.count(b"\n") == 2, failed


def test_editors(machine: Machine, tmp_path: Path) -> None:
    """As VS Code and Zed do: one shared connection; a program is sent and started; three channels are busy with bytes
    of all kinds.

    SHED_TEST_SECONDS says how long.
    """
    shared = ["-o", f"ControlPath={tmp_path}/c"]
    socks, local = free_port(), free_port()
    master = machine.ssh.start(
        "-o", "ControlMaster=yes", *shared, "-D", str(socks), "-L", f"{local}:localhost:7000", "-N", "dev@shed"
    )
    try:
        wait_until((tmp_path / "c").exists)
        machine.ssh.run(
            *shared, "-b", "-", "dev@shed", program="sftp", stdin=b"put /bin/busybox busybox-7\nchmod 755 busybox-7\n"
        )
        server = machine.ssh.start(*shared, "dev@shed", "exec ./busybox-7 nc -ll -p 7000 -e ./busybox-7 cat")
        wait_until(lambda: machine.listens(7000))
        standard = machine.ssh.start(*shared, "dev@shed", "./busybox-7 cat")
        assert standard.stdin is not None
        assert standard.stdout is not None
        lines = [socket.create_connection(("127.0.0.1", port)) for port in (local, socks)]
        lines[1].sendall(b"\5\1\0\5\1\0\3\x09localhost\x1b\x58")  # SOCKS 5, no password; connect, by name
        assert (lines[1].recv(2, socket.MSG_WAITALL), lines[1].recv(10, socket.MSG_WAITALL)[:2]) == (b"\5\0", b"\5\0")
        ways: list[tuple[int, int]] = [
            (standard.stdin.fileno(), standard.stdout.fileno()),
            *((line.fileno(), line.fileno()) for line in lines),
        ]
        ends: list[Callable[[], None]] = [
            standard.stdin.close,
            *(functools.partial(line.shutdown, socket.SHUT_WR) for line in lines),
        ]
        seconds = float(os.environ.get("SHED_TEST_SECONDS", "3"))
        with ThreadPoolExecutor(2 * len(ways)) as pool:
            sent = [pool.submit(send, out, seconds, end) for (out, _), end in zip(ways, ends, strict=True)]
            received = [pool.submit(receive, back) for _, back in ways]
            assert [one.result() for one in received] == [one.result() for one in sent]
        with standard:
            assert standard.wait(TIMEOUT) == 0
        for line in lines:
            line.close()
        server.terminate()
        output_of([server])
    finally:
        master.terminate()
        output_of([master])
    wait_until(lambda: machine.sh("pgrep -f '[b]usybox-7' || true") == "")


def send(target: int, seconds: float, end: Callable[[], None]) -> tuple[int, str]:
    """Write bytes that do not repeat for some time, and then end; return how many they were, and their digest."""
    digest, count, deadline = hashlib.sha256(), 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        data = os.urandom(50_000)
        digest.update(data)
        count += len(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(target, rest) :]
    end()
    return count, digest.hexdigest()


def receive(source: int) -> tuple[int, str]:
    """Read to the end; return how much that was, and its digest."""
    digest, count = hashlib.sha256(), 0
    while data := os.read(source, 65536):
        digest.update(data)
        count += len(data)
    return count, digest.hexdigest()


def test_clients_leave_a_line_each_in_the_log(machine: Machine) -> None:
    """That they came, and that they left, however often they come and whatever goes wrong with them; who says nothing
    leaves none.
    """
    log = machine.root / "data/logs/server.log"
    machine.sh("true")
    before = log.read_text()
    for _ in range(5):
        machine.sh("true")
        machine.ssh.run("nope@shed", "true", code=1)
        machine.ssh.run("-W", "localhost:1", "dev@shed", code=255)
        for sent in (b"GET / HTTP/1.0\r\n\r\n", b"SSH-2.0-x\r\n" + bytes(5000), b""):
            with socket.create_connection(("127.0.0.1", machine.ssh.port)) as client:
                client.sendall(sent)
    wait_until(lambda: log.read_text().removeprefix(before).count("logout of ") >= 15)  # of the first one too, perhaps
    said = [
        line for line in log.read_text().removeprefix(before).splitlines() if " shed.sheds." not in line
    ]  # clocks and templates
    assert [line for line in said if " INFO shed.server.ssh.logins: log" not in line] == []
    assert sum("login to nope by SHA256:" in line for line in said) == 5


@pytest.mark.parametrize("how", ["client", "program"])
def test_the_other_side_notices(machine: Machine, how: str) -> None:
    """When the client is killed in the middle of traffic, or the program is."""
    process = machine.ssh.start("dev@shed", "exec -a busy-4714 cat /dev/zero")
    assert process.stdout is not None
    assert len(process.stdout.read(1_000_000)) == 1_000_000
    if how == "client":
        process.kill()
    else:
        machine.sh("pkill -KILL -f '[b]usy-4714'")
    process.communicate(timeout=TIMEOUT)
    assert process.returncode == (-9 if how == "client" else 255)
    wait_until(lambda: machine.sh("pgrep -f '[b]usy-4714' || true") == "")


def test_a_server_that_starts_again(machine: Machine) -> None:
    """Its clients are cut off; the shed goes on, what ran for them is gone, and the next client gets in at once."""
    before = machine.sh("cat /proc/sys/kernel/random/boot_id")
    process = machine.ssh.start("dev@shed", "echo up; exec sleep 4715")
    assert process.stdout is not None
    assert process.stdout.read(3) == b"up\n"
    machine.shed("server", "stop")
    assert output_of([process])[0][2] == 255
    machine.shed("server", "start")
    assert machine.sh("cat /proc/sys/kernel/random/boot_id") == before
    wait_until(lambda: machine.sh("pgrep -f '[s]leep 4715' || true") == "")


def test_clients_start_a_stopped_shed(machine: Machine) -> None:
    """All of them get in, and those who wait are told for what."""
    machine.shed("stop", "bare")
    clients = [machine.ssh.start("bare@shed", f"echo {number}") for number in range(10)]
    ended = output_of(clients)
    assert [(out, code) for out, _, code in ended] == [(b"%d\n" % number, 0) for number in range(10)], ended
    assert {errors for _, errors, _ in ended} - {b""} == {b"Starting shed 'bare'...\n"}, ended


def test_a_machine_that_dies(machine: Machine) -> None:
    """Its clients are told in a line, and the next one starts it again."""
    process = machine.ssh.start("bare@shed", "echo up; exec cat /dev/zero")
    assert process.stdout is not None
    assert process.stdout.read(3) == b"up\n"
    os.kill(json.loads(machine.shed("list", "--json"))[0]["pid"], signal.SIGKILL)
    _, errors, code = output_of([process])[0]
    assert (code, errors.count(b"\n")) == (255, 1)
    assert machine.sh("echo again", name="bare") == "again\n"
