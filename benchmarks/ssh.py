"""A command in a shed three ways: `shed exec`, ssh to the front, and ssh to an OpenSSH server inside the same guest.

The server in the guest is Debian's sshd on a port of the guest's loopback; its port is forwarded by a thread of this
process over the server's API, so the bytes cross the same QEMU and the same agent.  ssh is this machine's OpenSSH in
all cases.
"""

from __future__ import annotations

import _socket
import json
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import Subject, command, compare, show
from benchmarks.material import CACHE
from benchmarks.world import SHED, shed, world
from shed.client.address import Address
from shed.client.transport import upgrade
from shed.images.bootkit.debian_archive import DebianArchive
from support.ports import free_port
from support.tools.ssh import Ssh

Socket = _socket.socket
_NAME = "bench-ssh"
_PACKAGES = ("openssh-server", "libwrap0", "libwtmpdb0", "libsqlite3-0")
"""What the base image lacks to run sshd."""
_PORT = 2022
_SIZE = 64 << 20
"""Bytes of a throughput run."""
_FILES = 600
_SETUP = f"""set -e
for package in *.deb; do sudo dpkg -x $package /; done
sudo useradd --system --home-dir /run/sshd --shell /usr/sbin/nologin sshd
sudo mkdir -p /run/sshd ~/.ssh
sudo ssh-keygen -A
sudo tee ~/.ssh/authorized_keys
sudo usermod -p '*' $USER
sudo chown -R $USER ~/.ssh
sudo /usr/sbin/sshd -f /dev/null -p {_PORT} -o UsePAM=no
"""


def main() -> None:
    """Compare round trips and throughput."""
    with world() as data, tempfile.TemporaryDirectory() as folder:
        _own_port(Path(folder))
        shed("create", _NAME, "--image", "base", "--memory", "1G")
        try:
            with _direct(data, Path(folder)) as (front, direct):
                _compare(front, direct)
        finally:
            shed("delete", _NAME, "--force")


def _own_port(home: Path) -> None:
    """Have the server start again with an SSH port of its own."""
    (home / ".config/shed").mkdir(parents=True)
    (home / ".config/shed/server.yaml").write_text(f"ssh_port: {free_port()}\n")
    shed("server", "stop")
    os.environ["HOME"] = str(home)
    shed("server", "start")


def _compare(front: list[str], direct: list[str]) -> None:
    ways = {"shed exec": [str(SHED), "exec", _NAME, "--"], "ssh to the front": front}
    for name, words in ways.items():
        show(
            "round trip of true",
            name,
            "sshd in the guest",
            compare(command([*words, "true"]), command([*direct, "true"]), runs=20, warmup=3),
        )
    for what, script, stdin in (
        ("out of the shed", f"head -c {_SIZE} /dev/zero", False),
        ("into the shed", "cat >/dev/null", True),
    ):
        for name, words in ways.items():
            raw = ["sh", "-c", script] if name == "shed exec" else [script]
            result = compare(_bytes([*words, *raw], stdin=stdin), _bytes([*direct, script], stdin=stdin), runs=3)
            show(f"{_SIZE >> 20} MiB {what}", name, "sshd in the guest", result)
            print(f"  {_rate(result.a)} beside {_rate(result.b)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        _compare_copies(direct, Path(folder))


def _compare_copies(direct: list[str], folder: Path) -> None:
    """`shed cp` beside tar over ssh: one large file, and many small ones."""
    large, small = folder / "large", folder / "small"
    large.mkdir()
    (large / "file").write_bytes(os.urandom(1 << 20) * (_SIZE >> 20))
    for number in range(_FILES):
        (small / f"{number % 30}").mkdir(parents=True, exist_ok=True)
        (small / f"{number % 30}/{number}").write_bytes(b"x" * (number * 37 % 16_000))
    for source, what in ((large, f"a file of {_SIZE >> 20} MiB"), (small, f"{_FILES} files of 8 KB")):
        into = subprocess.list2cmdline([*direct, "mkdir -p to && tar x -C to"])
        result = compare(
            command([SHED, "cp", f"{source}", f"{_NAME}:/tmp"]),
            command(["sh", "-c", f"tar c -C {folder} {source.name} | {into}"]),
            runs=3,
        )
        show(f"{what} into the shed", "shed cp", "tar over sshd in the guest", result)


def _rate(seconds: float) -> str:
    return f"{(_SIZE >> 20) / seconds:.0f} MiB/s"


def _bytes(words: list[str], *, stdin: bool) -> Subject:
    line = subprocess.list2cmdline(words)
    return command(["sh", "-c", f"head -c {_SIZE} /dev/zero | {line}" if stdin else f"{line} >/dev/null"])


@contextmanager
def _direct(data: Path, folder: Path) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the words that run a command through the front, and through an sshd in the guest."""
    front = Ssh(folder, json.loads(shed("server", "status", "--json"))["ssh_port"])
    shed("ssh-key", "add", front.public)
    key, line = front.key("key")
    front.run(
        "-q", "-b", "-", f"{_NAME}@shed", program="sftp", stdin="".join(f"put {deb}\n" for deb in _debs()).encode()
    )
    front.run(f"{_NAME}@shed", _SETUP, stdin=line.encode() + b"\n")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(
            target=_forward, args=(listener, str(Path(data).parent / "run/shed.sock")), daemon=True
        ).start()
        port = str(listener.getsockname()[1])
        yield front.command(f"{_NAME}@shed"), front.command("-i", str(key), "-p", port, "shed@guest")


def _debs() -> Iterator[Path]:
    archive = DebianArchive()
    for name in _PACKAGES:
        package = archive.newest(name)
        path = CACHE / package.path.rpartition("/")[2]
        if not path.exists():
            path.write_bytes(b"".join(archive.fetch(package.path)))
        yield path


def _forward(listener: socket.socket, server: str) -> None:
    """Forward what comes to `listener` to sshd."""
    while True:
        client, _ = listener.accept()
        guest = upgrade(Address(path=server), "GET", f"/api/sheds/{_NAME}/connect/{_PORT}", "shed-tcp")
        guest.settimeout(None)
        for source, target in ((client, guest), (guest, client)):
            threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _pump(source: Socket, target: Socket) -> None:
    try:
        while data := source.recv(1 << 18):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # either has gone
