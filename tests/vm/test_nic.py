"""A real guest with `--network nic`: UDP and ICMP get out to public addresses, and nothing private is reached."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterator

import pytest

from shed.client.sync.client import Client
from shed.client.sync.shed import RUNTIME
from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.servers.netlab import Lab, lab
from support.servers.udpecho import UDP_ECHO
from support.vms.machine import Machine
from support.waiting import wait_until

pytestmark = [
    pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("slirp4netns") is None, reason="slirp4netns is not installed"),
]  # fmt: skip
PUBLIC = "93.184.216.34"
PYTHON = [
    RUNTIME, "sh", "-c",
    ('r=/run/shed-runtime; for l in $r/lib/ld-linux-*; do exec $l --library-path $r/lib $r/bin/python3 -ISBc "$0" '
     '"$@"; done'),
]  # fmt: skip
"""The agent's own interpreter, which is in every image."""
UDP = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(3)
try:
    sock.sendto(b"hello", (sys.argv[1], 4000))
    print(sock.recv(100).decode())
except OSError:
    print("nothing")
"""
FETCH = f"{RUNTIME} wget -q -T 5 -O -"


class Host:
    """A machine whose server runs in a lab's host, and allows such networks."""

    def __init__(self, net: Lab, machine: Machine) -> None:
        self.net, self.machine = net, machine
        self._patch = pytest.MonkeyPatch()
        for name in ("SHED_DATA_DIR", "SHED_RUNTIME_DIR", "HOME"):
            self._patch.setenv(name, machine.environment[name])
        self.start_server()
        self.api = Client().api

    def start_server(self) -> None:
        """Start the server in the host's network."""
        words = f"exec {self.machine.command[0]} -m shed.server.main serve 2>&1"
        self.server = self.net.start_in_host(words, **self.machine.environment)

    def sh(self, words: str) -> tuple[int, str]:
        """Run words by the guest's shell as root; return the exit code and all that was printed."""
        done = self.machine.try_shed("exec", "--user", "root", "lab", "--", RUNTIME, "sh", "-c", f"{words} 2>&1")
        return done.returncode, done.stdout.decode()

    def udp(self, address: str) -> str:
        """Return what answers there by UDP."""
        words = ("exec", "--user", "root", "lab", "--", *PYTHON, UDP, address)
        return self.machine.try_shed(*words).stdout.decode().strip()

    def end(self) -> None:
        """End all of it."""
        self.machine.end()
        self._patch.undo()


@pytest.fixture(scope="module")
def host(way: str, small_store: LayoutStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with the shed lab; everything in the lab's internet, and on the host, answers by UDP."""
    machine = Machine(tmp_path_factory.mktemp("nic"), way=way, settings="network:\n  nic: allowed\n")
    copy_store(small_store, machine.data / "images")
    with lab(tmp_path_factory.mktemp("lab"), guest=False) as net:
        net.start_in_internet(sys.executable, "-c", UDP_ECHO)
        program = net.folder / "udp.py"
        program.write_text(UDP_ECHO)
        net.start_in_host(f"exec {sys.executable} {program}")
        made = Host(net, machine)
        machine.shed("create", "lab", "--image", "busybox", "--network", "nic")
        yield made
        made.end()


def test_udp_tcp_and_ping_get_out(host: Host) -> None:
    """To public addresses."""
    assert host.udp(PUBLIC) == "hello"
    assert host.sh(f"{FETCH} http://{PUBLIC}/hello") == (0, "hello\n")
    assert host.sh(f"{RUNTIME} ping -c 1 -W 5 {PUBLIC}")[0] == 0


def test_nothing_private_is_reached(host: Host) -> None:
    """Neither the host by any address, nor what is behind it, whatever the guest does with its card."""
    for address in ("10.0.2.2", "10.0.3.2", "100.127.0.1", "100.127.0.2", "169.254.169.254", "192.168.1.1"):
        assert host.udp(address) == "nothing", address
        assert host.sh(f"{FETCH} http://{address}/hello")[0] != 0, address
    host.sh(f"{RUNTIME} ip addr add 10.0.3.100/24 dev eth0; {RUNTIME} ip route add 100.127.0.1 dev eth0")
    assert host.udp("100.127.0.1") == "nothing"
    host.sh(f"{RUNTIME} ip addr del 10.0.3.100/24 dev eth0; {RUNTIME} ip route del 100.127.0.1")


def test_it_is_told_and_not_ruled(host: Host) -> None:
    """In the list, in what `egress show` says, and when somebody would rule it."""
    assert "not ruled" in host.machine.try_shed("list").stderr.decode()
    assert "not ruled" in host.machine.shed("egress", "show", "lab")
    done = host.machine.try_shed("egress", "off", "lab")
    assert done.returncode == 1
    assert "not ruled" in done.stderr.decode()


def test_it_outlives_the_server_and_comes_back_with_the_shed(host: Host) -> None:
    """It is the VM's, and ends with it."""
    host.server.send_signal(signal.SIGKILL)
    host.server.wait()
    host.start_server()
    assert host.udp(PUBLIC) == "hello"
    host.machine.shed("stop", "lab")
    host.machine.shed("start", "lab")
    wait_until(lambda: host.udp(PUBLIC) == "hello", what="the network is back")
