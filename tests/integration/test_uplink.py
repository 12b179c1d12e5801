"""`--network nic`, between real namespaces: what gets out by slirp4netns, and what the kernel's filter drops."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.egress.network import uplink_keeper
from shed.egress.rules.addresses import NEVER, PRIVATE
from support.servers.netlab import SOURCE, Lab, lab
from support.servers.udpecho import UDP_ECHO
from support.waiting import wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("slirp4netns") is None, reason="slirp4netns is not installed"),
]
PUBLIC = "93.184.216.34"
START = """
import os, socket, sys
from pathlib import Path
from shed.egress.network import uplink
sock = socket.socket(fileno=int(sys.argv[1]))
for _ in range(2):
    uplink.start(sock, int(sys.argv[2]), Path(sys.argv[3]))
print("ready", flush=True)
"""
UDP = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(2)
sock.sendto(b"hello", (sys.argv[1], 4000))
try:
    print(sock.recv(100).decode())
except OSError:
    print("nothing")
"""
FETCH = """
import sys, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=3).read().decode().strip())
except OSError:
    print("nothing")
"""


class Nic:
    """A lab whose guest has such a network, and the process that stands for its VMM."""

    def __init__(self, net: Lab, folder: Path) -> None:
        self.net, self.folder = net, folder
        self.machine = subprocess.Popen(["sleep", "1000"])
        self.start()

    def start(self) -> None:
        """Have the host give the guest its way out."""
        fd = os.dup(self.net.sockets[0].fileno())
        os.set_inheritable(fd, True)
        words = [sys.executable, "-c", START, str(fd), str(self.machine.pid), str(self.folder)]
        done = subprocess.run(
            ["ip", "netns", "exec", self.net.host, *words], pass_fds=[fd], capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(SOURCE)}, timeout=60,
        )  # fmt: skip
        os.close(fd)
        assert done.stdout == "ready\n", done.stderr

    def udp(self, address: str) -> str:
        """Return what answers there by UDP."""
        return self.net.python(UDP, address).strip()

    def fetch(self, url: str) -> str:
        """Return what is at `url`."""
        return self.net.python(FETCH, url).strip()


@pytest.fixture(scope="module")
def nic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nic]:
    """A guest with such a network; the host and the internet have a UDP echo at all their addresses."""
    with lab(tmp_path_factory.mktemp("lab")) as net:
        program = net.folder / "udp.py"
        program.write_text(UDP_ECHO)
        net.start_in_internet(sys.executable, str(program))
        net.start_in_host(f"exec {sys.executable} {program}")
        made = Nic(net, tmp_path_factory.mktemp("vm"))
        yield made
        made.machine.kill()
        made.machine.wait()


def test_tcp_udp_and_ping_get_out(nic: Nic) -> None:
    """To public addresses; no rule is asked."""
    assert nic.udp(PUBLIC) == "hello"
    assert nic.fetch(f"http://{PUBLIC}/hello") == "hello"
    done = nic.net.run("ping", "-c", "1", "-W", "3", PUBLIC)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "address",
    ["10.0.2.2", "10.0.3.2", "10.0.3.3", "127.0.0.1", "127.0.0.2", "100.127.0.1", "100.127.0.2", "10.1.2.3",
     "192.168.1.1", "172.16.0.1", "169.254.169.254", "192.0.2.1", "224.0.0.1", "255.255.255.255"],
)  # fmt: skip
def test_nothing_private_is_reached(nic: Nic, address: str) -> None:
    """Neither the host by any of its addresses, nor what is behind it, by TCP or UDP."""
    assert nic.net.run(sys.executable, "-c", UDP, address).stdout.strip() != "hello"
    assert nic.net.run(sys.executable, "-c", FETCH, f"http://{address}/hello").stdout.strip() != "hello"


def test_an_address_that_the_host_gets_is_closed_soon(nic: Nic) -> None:
    """Also to what was open before."""
    mine = "93.184.216.99"
    assert nic.udp(mine) == "hello", "somebody else has it"
    subprocess.run(["ip", "-n", nic.net.host, "addr", "add", f"{mine}/32", "dev", "lo"], check=True)
    wait_until(lambda: nic.udp(mine) == "nothing", what="it is the host's, and closed")
    subprocess.run(["ip", "-n", nic.net.host, "addr", "del", f"{mine}/32", "dev", "lo"], check=True)


def test_it_ends_with_the_virtual_machine(nic: Nic) -> None:
    """Nothing of it is left; the next start gives it anew."""
    nic.machine.kill()
    nic.machine.wait()
    wait_until(lambda: nic.udp(PUBLIC) == "nothing", what="there is no way out")
    wait_until(lambda: not running(nic.folder), what="its processes have ended")


def running(folder: Path) -> list[str]:
    """Return the processes that keep the way out of the VM in `folder`."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if process.name.isdigit() and str(folder).encode() in words and b"uplink_keeper" in words:
            found.append(process.name)
    return found


def test_the_lists_of_addresses_are_the_same() -> None:
    """The filter's and the relay's: the program stands alone, and cannot import the other one."""
    four = {str(network) for network in (*NEVER, *PRIVATE) if network.version == 4}
    assert set(uplink_keeper.NEVER) == four
