"""A real guest with `--network nic`: UDP and ICMP get out to public addresses, and nothing private is reached."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterator

import pytest

from shed.client.sync.shed import RUNTIME
from shed.oci.store import LayoutStore
from support.servers.udpecho import UDP_ECHO
from support.vms.ruled import PYTHON, RuledHost, ruled_host
from support.waiting import wait_until

pytestmark = [
    pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("slirp4netns") is None, reason="slirp4netns is not installed"),
]  # fmt: skip
PUBLIC = "93.184.216.34"
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


@pytest.fixture(scope="module")
def host(way: str, small_store: LayoutStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RuledHost]:
    """A host whose shed has such a network; everything in the lab's internet, and on the host, answers by UDP."""
    nic = ("--network", "nic")
    with ruled_host(
        way, small_store, tmp_path_factory.mktemp("nic"), *nic, settings="network:\n  nic: allowed\n"
    ) as made:
        made.net.start_in_internet(sys.executable, "-c", UDP_ECHO)
        program = made.net.folder / "udp.py"
        program.write_text(UDP_ECHO)
        made.net.start_in_host(f"exec {sys.executable} {program}")
        yield made


def udp(host: RuledHost, address: str) -> str:
    """Return what answers there by UDP."""
    words = ("exec", "--user", "root", "dev", "--", *PYTHON, UDP, address)
    return host.machine.try_shed(*words).stdout.decode().strip()


def test_udp_tcp_and_ping_get_out(host: RuledHost) -> None:
    """To public addresses."""
    assert udp(host, PUBLIC) == "hello"
    assert host.sh(f"{FETCH} http://{PUBLIC}/hello") == (0, "hello\n")
    assert host.sh(f"{RUNTIME} ping -c 1 -W 5 {PUBLIC}")[0] == 0


def test_nothing_private_is_reached(host: RuledHost) -> None:
    """Neither the host by any address, nor what is behind it, whatever the guest does with its card."""
    for address in ("10.0.2.2", "10.0.3.2", "100.127.0.1", "100.127.0.2", "169.254.169.254", "192.168.1.1"):
        assert udp(host, address) == "nothing", address
        assert host.sh(f"{FETCH} http://{address}/hello")[0] != 0, address
    host.sh(f"{RUNTIME} ip addr add 10.0.3.100/24 dev eth0; {RUNTIME} ip route add 100.127.0.1 dev eth0")
    assert udp(host, "100.127.0.1") == "nothing"
    host.sh(f"{RUNTIME} ip addr del 10.0.3.100/24 dev eth0; {RUNTIME} ip route del 100.127.0.1")


def test_it_is_told_and_not_ruled(host: RuledHost) -> None:
    """In the list, in what `egress show` says, and when somebody would rule it."""
    assert "not ruled" in host.machine.try_shed("list").stderr.decode()
    assert "not ruled" in host.machine.shed("egress", "show", "dev")
    done = host.machine.try_shed("egress", "off", "dev")
    assert done.returncode == 1
    assert "not ruled" in done.stderr.decode()


def test_it_outlives_the_server_and_comes_back_with_the_shed(host: RuledHost) -> None:
    """It is the VM's, and ends with it."""
    host.server.send_signal(signal.SIGKILL)
    host.server.wait()
    host.start_server()
    assert udp(host, PUBLIC) == "hello"
    host.machine.shed("stop", "dev")
    host.machine.shed("start", "dev")
    wait_until(lambda: udp(host, PUBLIC) == "hello", what="the network is back")
