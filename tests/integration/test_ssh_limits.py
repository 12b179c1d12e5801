"""Attacks on the SSH port of a real server, and what it says of them."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import paramiko
import pytest

from shed.server.ssh.limits import DROP_ALL, DROP_FROM, MOST_TRIES
from support.tools.ssh import TIMEOUT, output_of
from support.tools.ssh_host import Host
from support.waiting import wait_until

NOBODY = 65534
SILENT = """
import encodings.idna, os, select, socket, sys
os.setuid(int(sys.argv[2]))
clients = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(300)]
print("open", flush=True)
poll = select.poll()
for client in clients:
    client.setblocking(False)
    poll.register(client, select.POLLIN)
left, said = {client.fileno(): client for client in clients}, 0
while left:
    for number, _ in poll.poll():
        try:
            data = left[number].recv(4096)
        except ConnectionResetError:
            data = b""
        said += bool(data)
        if not data:
            poll.unregister(number)
            del left[number]
print(said, flush=True)
"""
"""Opens 300 connections, says nothing, and prints how many the server began to talk to once it has hung up on all."""
Make = Callable[..., Host]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Return what makes a host with the shed ``dev``, of the test's own."""
    made: list[Host] = []

    def make(**settings: Any) -> Host:
        made.append(Host(tmp_path, logged=True, **settings))
        made[-1].create("dev")
        return made[-1]

    yield make
    for host in made:
        host.end()


@pytest.mark.root
def test_silent_connections(make: Make) -> None:
    """300 of another user's: some are dropped at once, the others when their time is over, and everybody else gets in
    meanwhile.

    6aee119 keeps all of them open for a minute, and takes any number more.
    """
    host = make(limits={"LOGIN_SECONDS": 10})
    words = [sys.executable, "-c", SILENT, str(host.ssh.port), str(NOBODY)]
    attacker = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert attacker.stdout is not None
        assert attacker.stdout.readline() == "open\n"
        for number in range(3):
            assert host.ssh.run("dev@shed", f"echo {number}").stdout == b"%d\n" % number
        assert DROP_FROM <= int(attacker.communicate(timeout=TIMEOUT)[0]) <= DROP_ALL
    finally:
        attacker.kill()
        attacker.wait()
    refusals = [line for line in host.log_file.read_text().splitlines() if " no login from " in line]
    assert 0 < len(refusals) <= 20  # ten in a minute, of which two may have begun
    assert all(
        line.endswith("(user nobody): too many connections of it are open") or "showed no key" in line
        for line in refusals
    )


def test_descriptors_that_run_out(make: Make) -> None:
    """The server goes on, serves whoever waits, and its log has a line about it; 6aee119 logs a traceback for each
    try.
    """
    host = make()
    host.ssh.run("dev@shed", "true")
    files = len(list(Path(f"/proc/{host.server.process.pid}/fd").iterdir()))
    before = resource.prlimit(host.server.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(host.server.process.pid, resource.RLIMIT_NOFILE, (files + 8, before[1]))
    with contextlib.ExitStack() as held:
        for _ in range(40):
            held.enter_context(socket.create_connection(("127.0.0.1", host.ssh.port)))
        wait_until(lambda: "new connections wait: Too many open files" in host.log_file.read_text(), seconds=TIMEOUT)
    assert host.ssh.run("dev@shed", "echo in").stdout == b"in\n"
    assert host.get("/api/info")["ssh_port"] == host.ssh.port
    assert host.log_file.read_text().count("new connections wait") <= 2  # one for each port
    assert "Traceback" not in host.log_file.read_text()


def test_many_keys_on_one_connection(make: Make) -> None:
    """It is hung up on at the sixth; 6aee119 lets a client try as many as it likes."""
    host = make()
    with contextlib.closing(paramiko.Transport(("127.0.0.1", host.ssh.port))) as client:
        client.start_client(timeout=TIMEOUT)
        tried = 0
        with pytest.raises((paramiko.SSHException, EOFError)) as caught:
            while tried < 2 * MOST_TRIES:
                with contextlib.suppress(paramiko.BadAuthenticationType):
                    try:
                        client.auth_publickey("dev", paramiko.ECDSAKey.generate())
                    except paramiko.AuthenticationException:
                        if not client.is_active():
                            raise
                tried += 1
        assert caught.value is not None
        assert tried <= MOST_TRIES
        assert not client.is_authenticated()
    assert host.ssh.run("dev@shed", "echo in").stdout == b"in\n"


def test_a_name_that_changes(make: Make) -> None:
    """Ends the connection: each name would have the server read its keys again."""
    host = make()
    with contextlib.closing(paramiko.Transport(("127.0.0.1", host.ssh.port))) as client:
        client.start_client(timeout=TIMEOUT)
        for name in ("dev", "web"):
            assert client.is_active()
            with pytest.raises(paramiko.SSHException):
                client.auth_none(name)
        wait_until(lambda: not client.is_active())


async def test_channels_of_one_connection(make: Make) -> None:
    """So many and no more; one that is closed makes room, and other connections have their own."""
    host = make(limits={"MOST_CHANNELS": 5})

    async def until_there_is_room(client: asyncssh.SSHClientConnection) -> None:
        while True:
            with contextlib.suppress(
                asyncssh.ChannelOpenError
            ):  # the server is just about to notice that a channel is closed
                assert (await client.run("echo room")).stdout == "room\n"
                return

    keys = [str(host.ssh.private)]
    async with asyncssh.connect(
        "127.0.0.1", host.ssh.port, username="dev", known_hosts=None, config=None, client_keys=keys
    ) as client:
        sessions = [await client.create_process("read line") for _ in range(4)]
        _, forwarded = await client.open_connection("localhost", 7)
        with pytest.raises(asyncssh.ChannelOpenError, match="5 channels are open"):
            await client.create_process("true")
        with pytest.raises(asyncssh.ChannelOpenError, match="5 channels are open"):
            await client.open_connection("localhost", 7)
        sessions[0].stdin.write_eof()
        await sessions[0].wait()
        await until_there_is_room(client)
        for _ in range(10):  # a port where nothing listens takes up none
            with pytest.raises(asyncssh.ChannelOpenError, match="refused"):
                await client.open_connection("localhost", 8)
        await until_there_is_room(client)
        forwarded.close()


def test_a_client_that_is_dead(make: Make) -> None:
    """Is asked whether it is there, and given up; its command is hung up."""
    host = make(limits={"KEEPALIVE_SECONDS": 0.2})
    client = host.ssh.start("dev@shed", "echo up; exec sleep 100")
    assert client.stdout is not None
    assert client.stdout.read(3) == b"up\n"
    client.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: "logout of dev" in host.log_file.read_text())
    finally:
        client.kill()
        output_of([client])


def test_logins_are_written_down(make: Make) -> None:
    """Who came, who was refused, what was opened, who left: in the log and in the audit log, by the key's
    fingerprint.
    """
    host = make()
    stranger, _ = host.ssh.key("stranger")
    shown = {
        path: subprocess.run(["ssh-keygen", "-lf", path], capture_output=True, text=True, check=True).stdout.split()[1]
        for path in (stranger, host.ssh.private)
    }
    ours = shown[host.ssh.private]
    host.ssh.run("dev@shed", "echo a secret")
    host.ssh.run("-W", "localhost:7", "dev@shed", stdin=b"x")
    host.ssh.by(stranger).run("dev@shed", "true", code=255)
    host.ssh.by(None).run("web@shed", "true", code=255)
    wait_until(lambda: "web" in host.log_file.read_text())
    host.server.end()
    lines = host.log_file.read_text().splitlines()
    found = [re.sub(r"127[.]0[.]0[.]1:\d+ \(user [^)]*\)|\d+ s$", "…", line) for line in lines if "127.0.0.1:" in line]
    assert sorted(found) == sorted(
        [
            *[f"INFO login to dev by {ours} from …", f"INFO logout of dev by {ours} from … after …"] * 2,
            f"WARNING no login to dev from …: refused {shown[stranger]}",
            "WARNING no login to web from …: it showed no key",
        ]
    )
    records = [record for record in host.server.audited() if record["action"].startswith("ssh ")]
    mine = [(record["action"], record["shed"]) for record in records if record["who"] == {"kind": "key", "name": ours}]
    assert mine == [("ssh login", "dev"), ("ssh exec", "dev"), ("ssh login", "dev"), ("ssh forward 7", "dev")]
    others = [
        (record["action"], record["who"]["by"], record["code"])
        for record in records
        if record["who"]["kind"] == "stranger"
    ]
    assert others == [("ssh login", "ssh", "UNAUTHORIZED")] * 2
    assert "secret" not in str(records)


@pytest.mark.parametrize("name", ["\x1b]0;title\x07", "a\nINFO login to dev", "\u202eved", "\x9b31m"])
def test_names_that_a_terminal_would_obey(make: Make, name: str) -> None:
    """Do not reach the log as they are, and begin no line of their own in it."""
    host = make()
    for client in (host.ssh, host.ssh.by(None)):
        done = subprocess.run(
            client.command("-l", name, "shed", "true"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode != 0
        assert b"Traceback" not in done.stderr
    host.server.end()
    assert name not in host.log_file.read_text()
    assert all(re.match(r"(DEBUG|INFO|WARNING|ERROR) ", line) for line in host.log_file.read_text().splitlines())


def test_what_is_no_ssh(make: Make) -> None:
    """Bytes of other protocols, too many of them, and half a key exchange end in no traceback and hurt nobody else."""
    host = make()
    for sent in (
        b"GET / HTTP/1.0\r\n\r\n",
        b"SSH-2.0-x\r\n" + os.urandom(40_000),
        b"SSH-2.0-x\r\n\xff\xff\xff\xff",
        b"A" * 100_000,
        b"\n" * 5000,
    ):
        with socket.create_connection(("127.0.0.1", host.ssh.port)) as client:
            client.settimeout(TIMEOUT)
            with contextlib.suppress(ConnectionError):
                client.sendall(sent)
                client.shutdown(socket.SHUT_WR)
                while client.recv(4096):
                    pass
    assert host.ssh.run("dev@shed", "echo in").stdout == b"in\n"
    assert "Traceback" not in host.log_file.read_text()
