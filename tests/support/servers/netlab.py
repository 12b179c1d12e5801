"""A network to test the relay in, of namespaces that the test makes: the host, the internet, and a guest.

::

    guest ── eth0 ═ cable ═ shed0 ── namespace ── relay, in the host ── veth ── internet

The cable stands in for a VM: it carries frames between that namespace's card and one in the guest's namespace, so that
what the guest sends goes through a real kernel's network, at the speed of two copies in Python.  The internet takes
every address for its own; a web server listens there on port 80 and an echo server on port 7 of all of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from shed.egress import wire
from shed.egress.netdfiles import DECISIONS, SOCKET
from shed.egress.network import netns
from support.servers.netwatch import NAME_SERVER

SOURCE = Path(__file__).parents[3] / "src"
_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _TAP = 0x400454CA, 0x2 | 0x1000 | 0x4000
_ECHO = """
import socket, threading
def serve(client):
    with client:
        while data := client.recv(65536):
            client.sendall(data)
listener = socket.create_server(("0.0.0.0", 7), backlog=512)
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


OLD_RELAY = """-c '
import sys
from shed.egress import netd
netd.VERSION, netd._HANDOVER = "0.0.1", 0.2
sys.exit(netd.main(*sys.argv[1:]))
'"""
"""The relay's process of an older version, which is quick to end when it has retired."""
TALK = """
import socket, sys, threading
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=30) as sock:
    for size in (1, 1000, 300_000, 3_000_000):
        data = bytes(range(256)) * (size // 256 + 1)
        threading.Thread(target=sock.sendall, args=(data,)).start()
        got = b""
        while len(got) < len(data):
            part = sock.recv(1 << 20)
            assert part, "it ended"
            got += part
        assert got == data
    sock.shutdown(socket.SHUT_WR)
    assert sock.recv(1) == b""
print("all of it")
"""
"""Sends more and more to an echo, and takes it back whole."""


class Lab:
    """The namespaces and what runs in them, below `folder`."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self._tag = f"t{os.getpid()}"
        self.host, self.internet, self.guest = (f"{self._tag}{letter}" for letter in "hig")
        for name in (self.host, self.internet, self.guest):
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("link", "add", "veth", "netns", self.host, "type", "veth", "peer", "name", "veth", "netns", self.internet)
        for name, address in ((self.host, "100.127.0.1"), (self.internet, "100.127.0.2")):
            _ip("-n", name, "addr", "add", f"{address}/30", "dev", "veth")
            _ip("-n", name, "link", "set", "veth", "addrgenmode", "none")  # or it speaks IPv6 on its own
            _ip("-n", name, "link", "set", "veth", "up")
        _ip("-n", self.host, "route", "add", "default", "via", "100.127.0.2")
        _ip("-n", self.internet, "route", "add", "local", "0.0.0.0/0", "dev", "lo")
        web = folder / "web"
        web.mkdir()
        (web / "hello").write_text("hello\n")
        self._start(
            self.internet,
            [sys.executable, "-u", "-m", "http.server", "80", "--bind", "0.0.0.0", "--directory", str(web)],
        )
        self._start(self.internet, [sys.executable, "-c", _ECHO])
        self._hosts = folder / "hosts"
        self.names({})
        (folder / "nsswitch.conf").write_text("hosts: files\n")
        (folder / "resolv.host.conf").write_text("nameserver 100.127.0.2\nsearch corp.example\n")

    def names(self, names: Mapping[str, Sequence[str]]) -> None:
        """Have the host's resolver know these names, and no others."""
        lines = [f"{address} {name}\n" for name, addresses in names.items() for address in addresses]
        text = "127.0.0.1 localhost\n" + "".join(lines)
        # The file itself is mounted, no other can take its place: one write, and no moment in which it is empty.
        file = os.open(self._hosts, os.O_RDWR | os.O_CREAT, 0o644)
        os.pwrite(file, text.encode().ljust(os.fstat(file).st_size, b"\n"), 0)
        os.close(file)
        self.known = names

    def start_name_server(self) -> None:
        """Have the host's resolver ask a server in the internet, too, for names that it has no address of."""
        self._start(self.internet, [sys.executable, "-c", NAME_SERVER, str(self.folder / "asked")])
        (self.folder / "nsswitch.conf").write_text("hosts: files dns\n")

    def asked(self) -> set[str]:
        """Return the names that the server in the internet was asked for."""
        return set((self.folder / "asked").read_text().split())

    def start_netd(self) -> subprocess.Popen[bytes]:
        """Start the relay's process in the host; its resolver asks our own file alone."""
        return self.start_program("-m shed.egress.netd")

    def start_program(self, words: str, run: Path | None = None, logs: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a program that is the relay's process in some way: `words` are Python's."""
        words = f"exec {sys.executable} {words} {run or self.folder} {logs or self.folder}"
        return self.start_in_host(words, PYTHONPATH=str(SOURCE))

    def start_in_host(self, words: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a program of the host, by shell, that prints something when it is ready; it resolves only our names."""
        files = {"nsswitch.conf": "nsswitch.conf", "resolv.host.conf": "resolv.conf", "hosts": "hosts"}
        binds = [f"mount --bind {self.folder}/{ours} /etc/{theirs}" for ours, theirs in files.items()]
        return self._start(self.host, ["sh", "-c", " && ".join([*binds, words])], **environment)

    def start_in_internet(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a program at all addresses of the internet that prints something when it is ready."""
        return self._start(self.internet, list(words))

    def do(self, message: dict[str, Any], sockets: Sequence[socket.socket] = ()) -> dict[str, Any]:
        """Send the relay's process one message and return its answer."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            client.connect(str(self.folder / SOCKET))
            wire.send(client, message, [sock.fileno() for sock in sockets])
            return wire.receive(client)[0]

    @contextlib.contextmanager
    def watch(self) -> Iterator[socket.socket]:
        """Yield a connection by which the relay's process tells what it decides."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            client.connect(str(self.folder / SOCKET))
            wire.send(client, {"do": "watch"})
            assert wire.receive(client)[0] == {"ok": True}
            yield client

    def rule(self, *rules: dict[str, Any], log: str = "all") -> dict[str, Any]:
        """Have the shed `dev` be ruled by `rules` from now on."""
        return self.do(
            {"do": "rule", "shed": "dev", "orders": {"profiles": {"mine": {"rules": list(rules), "log": log}}}}
        )

    def connect_guest(self) -> None:
        """Start a relay, and put the guest behind a namespace whose relay is called `dev`, and allows nothing."""
        self.netd = self.start_netd()
        network = netns.make()
        self._stack.callback(network.close)
        self.sockets = [self._stack.enter_context(socket.socket(fileno=os.dup(fd))) for fd in network.sockets]
        self.open()
        card = self._guest_card()
        self._stack.callback(os.close, card)
        for words in (
            ("addr", "add", netns.ADDRESS, "dev", "eth0"), ("link", "set", "eth0", "up"),
            ("route", "add", "default", "via", netns.DNS),
        ):  # fmt: skip
            _ip("-n", self.guest, *words)
        _start_cable(self._stack, network.card, card)

    def open(self) -> None:
        """Give the namespace's sockets to the relay."""
        answer = self.do({"do": "open", "shed": "dev", "orders": {"profiles": {"none": {"rules": []}}}}, self.sockets)
        assert answer == {"ok": True}, answer

    def give_out(self, folder: Path) -> None:
        """Give the namespace's sockets to whoever connects in `folder`, as the keeper of a VM does."""
        listener = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(folder / netns.SOCKET))
        listener.listen()

        def give() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client:
                        socket.send_fds(client, [b"S"], [sock.fileno() for sock in self.sockets])

        threading.Thread(target=give, daemon=True).start()
        self._stack.callback(listener.shutdown, socket.SHUT_RDWR)

    def run(self, *words: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command in the guest, with the relay's name service."""
        return subprocess.run(
            self._in_guest(words),
            capture_output=True, text=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def talk_in_guest(self, *words: str) -> subprocess.Popen[str]:
        """Start a program in the guest, to talk to by pipes; it is ended with the lab at the latest."""
        child = subprocess.Popen(self._in_guest(words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._stack.callback(child.kill)
        return child

    def _in_guest(self, words: Sequence[str]) -> list[str]:
        resolv = self.folder / "resolv.conf"
        resolv.write_text(f"nameserver {netns.DNS}\noptions attempts:1 timeout:5\n")
        command = f'mount --bind {resolv} /etc/resolv.conf && exec "$@"'
        return ["ip", "netns", "exec", self.guest, "sh", "-c", command, "sh", *words]

    def python(self, program: str, *words: str) -> str:
        """Run a Python program in the guest and return what it prints; its failure fails the test."""
        done = self.run(sys.executable, "-c", program, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start_in_guest(self, program: str, *words: str) -> subprocess.Popen[bytes]:
        """Start a Python program in the guest; the caller reads what it prints."""
        command = self._in_guest([sys.executable, "-c", program, *words])
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self._stack.callback(_end, child)
        return child

    def decisions(self) -> list[dict[str, Any]]:
        """Return what the log has."""
        file = self.folder / DECISIONS
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def _start(self, namespace: str, words: list[str], **environment: str) -> subprocess.Popen[bytes]:
        """Start a program that prints something when it is ready."""
        child = subprocess.Popen(
            ["ip", "netns", "exec", namespace, *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env={**os.environ, **environment},
        )  # fmt: skip
        self._stack.callback(_end, child)
        assert child.stdout is not None
        assert child.stdout.readline(), f"{words} ended"
        return child

    def _guest_card(self) -> int:
        """Return a TAP called eth0 in the guest's namespace."""
        made: list[int] = []

        def make() -> None:
            libc = ctypes.CDLL(None, use_errno=True)
            with open(f"/run/netns/{self.guest}", "rb") as namespace:
                assert libc.setns(namespace.fileno(), _CLONE_NEWNET) == 0
            card = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            fcntl.ioctl(card, _TUNSETIFF, struct.pack("16sH22x", b"eth0", _TAP))
            made.append(card)

        thread = threading.Thread(target=make)  # a namespace is a thread's
        thread.start()
        thread.join()
        return made[0]


def _start_cable(stack: contextlib.ExitStack, one: int, other: int) -> None:
    """Carry frames between two cards, in a process of its own."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            for descriptor in (0, 1, 2):
                os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
            threading.Thread(target=_carry, args=(one, other), daemon=True).start()
            _carry(other, one)
        os._exit(0)

    def end() -> None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    stack.callback(end)


def _carry(source: int, target: int) -> None:
    while True:
        frame = os.read(source, 1 << 17)
        with contextlib.suppress(OSError):  # a card that is down takes none
            os.write(target, frame)


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def lab(folder: Path, *, guest: bool = True) -> Iterator[Lab]:
    """Yield a lab, with a relay and a guest unless that is not wanted; needs root."""
    with contextlib.ExitStack() as stack:
        made = Lab(folder, stack)
        if guest:
            made.connect_guest()
        yield made
