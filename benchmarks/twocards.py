"""A guest with two cards, one of which leads to a relay and the other one into QEMU's user network.

The guest is a bare one: the boot kit's kernel and its interpreter, and files of the benchmark.  What it runs prints
``BENCH begin NAME WAY 0`` before it measures, where a way is ``relay`` or ``user``, and ``BENCH end NAME WAY SECONDS``
behind it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness import Comparison, Sample, paired
from shed.backends.qemu import accel, command, tsc
from shed.egress.network import netns
from shed.egress.orders import Orders
from shed.egress.process import NetdProcess
from shed.entries import Entry
from shed.images.bootkit.initrd import write_cpio

RELAY_DNS, USER_DNS = netns.DNS, "10.0.3.3"
"""The name services, which are the routers, too, or beside them."""
USER_HOST = "10.0.3.2"
"""This machine's loopback, by the user network."""
_INIT = f"""#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc /dev /rt /etc
$b mount -t proc proc /proc; $b mount -t devtmpfs dev /dev
cd /modules; for m in $($b cat early) failover.ko net_failover.ko virtio_net.ko; do $b insmod $m; done
until $b mount -t erofs -o ro /dev/vda /rt; do $b sleep 0.1; done
$b ip link set lo up
$b ip addr add {netns.ADDRESS} dev eth0; $b ip link set eth0 up; $b ip route add default via {netns.DNS}
$b ip addr add 10.0.3.15/24 dev eth1; $b ip link set eth1 up
echo nameserver {netns.DNS} > /etc/resolv.conf
"""
PYTHON = "/rt/lib/ld-linux-x86-64.so.2 --library-path /rt/lib /rt/bin/python3 -ISB"
"""The guest's interpreter."""


@dataclass(frozen=True)
class Program:
    """What a guest runs."""

    words: str
    """A line of shell; ``$b`` is busybox."""
    files: Mapping[str, str]
    """By name, in its root."""
    disk: Path | None = None
    """What is ``/dev/vdb``, if there is one; what is written there is gone at the end."""


@dataclass
class Timings:
    """What a guest has measured."""

    seconds: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    """By what was done and by which way."""
    burnt: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """The relay's seconds of processor, by what was done."""
    console: bytes = b""

    def compared(self, name: str) -> Comparison:
        """Return the comparison of the ways."""
        relay, user = (list(map(Sample, self.seconds[name, way])) for way in ("relay", "user"))
        return paired(relay, user)

    def load(self, name: str) -> float:
        """Return how much of a processor the relay took."""
        return self.burnt[name] / sum(self.seconds[name, "relay"])


def measure(data: Path, orders: Orders, program: Program, expected: int) -> Timings:
    """Return what a program measures in a guest; the benchmark ends when that is not `expected` pairs."""
    found = Timings()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        process, network = stack.enter_context(relay(folder)), stack.enter_context(netns.make())
        give(process, "bench", orders, network)
        pid = pid_of(process)
        child = stack.enter_context(_guest(data, folder, network.card, program))
        assert child.stdout is not None
        before = 0.0
        for line in child.stdout:
            found.console += line
            if not line.startswith(b"BENCH "):
                continue
            _, when, name, way, text = line.decode().split()
            if when == "begin":
                before = processor(pid)
            elif when == "end":
                found.seconds[name, way].append(float(text))
                found.burnt[name] += (processor(pid) - before) * (way == "relay")
        child.wait()
    if sum(len(times) for (_, way), times in found.seconds.items() if way == "user") != expected:
        sys.exit(f"the guest ended early:\n{found.console[-4000:].decode(errors='replace')}")
    return found


@contextlib.contextmanager
def _guest(data: Path, folder: Path, card: int, program: Program) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a guest with both cards that runs `program`, and then ends."""
    kit = {
        key: str(value).removeprefix("sha256:")
        for key, value in json.loads((data / "images/kit.json").read_text()).items()
    }
    blobs, qemu = data / "images/blobs/sha256", shutil.which("qemu-system-x86_64")
    if qemu is None:
        sys.exit("the egress benchmarks need qemu-system-x86: make bench installs it")
    initrd = folder / "initrd"
    with initrd.open("wb") as out:
        out.write((blobs / kit["initrd"]).read_bytes())
        init = _file("bench-init", f"{_INIT}{program.words}\n$b poweroff -f\n", 0o755)
        write_cpio([init, *(_file(name, text, 0o644) for name, text in program.files.items())], out)
    verdict = json.loads((data / "accel.json").read_text())["accel"] if (data / "accel.json").exists() else "tcg"
    board = command.board(verdict, one_thread=verdict == "tcg" and accel.one_thread(Path(qemu)))
    kernel_words = f"{command.kernel_command_line(verdict, tsc.khz())} rdinit=/bench-init"
    drives = [f"file={blobs / kit['runtime']},if=virtio,format=raw,readonly=on"]
    if program.disk is not None:
        drives.append(f"file={program.disk},if=virtio,format=raw,snapshot=on")
    arguments = [
        qemu, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", *board, "-smp", "2", "-m", "1024M",
        "-kernel", str(blobs / kit["kernel"]), "-initrd", str(initrd), "-append", kernel_words, "-serial", "stdio",
        *(word for drive in drives for word in ("-drive", drive)),
        "-netdev", f"tap,id=relay,fd={card},vhost=off", "-device", "virtio-net-pci,netdev=relay,romfile=",
        "-netdev", f"user,id=user,ipv6=off,net=10.0.3.0/24,host={USER_HOST},dns={USER_DNS}",
        "-device", "virtio-net-pci,netdev=user,romfile=",
    ]  # fmt: skip
    with subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, pass_fds=(card,)) as child:
        try:
            yield child
        finally:
            child.kill()


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def pread(self, length: int, offset: int) -> bytes:
        return self.data[offset : offset + length]


def _file(name: str, text: str, mode: int) -> Entry:
    data = text.encode()
    return Entry(name.encode(), stat.S_IFREG | mode, size=len(data), content=_Bytes(data))


@contextlib.contextmanager
def relay(folder: Path) -> Iterator[NetdProcess]:
    """Yield a relay's process of its own, which ends with the block."""
    process = NetdProcess(folder, folder)
    with contextlib.closing(process.watch()[0]):  # or it would end for want of sheds
        try:
            yield process
        finally:
            for shed in process.sheds():
                process.close(shed)


def give(process: NetdProcess, shed: str, orders: Orders, network: netns.Netns) -> None:
    """Have the relay serve a network namespace."""
    sockets = [socket.socket(fileno=os.dup(descriptor)) for descriptor in network.sockets]
    process.open(shed, orders, sockets)
    for sock in sockets:
        sock.close()


def pid_of(process: NetdProcess) -> int:
    """Return the number of the relay's process."""
    with contextlib.closing(process.watch()[0]) as watch:
        return int(struct.unpack("3i", watch.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


def processor(pid: int) -> float:
    """Return the seconds of processor that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
