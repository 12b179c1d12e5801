"""The relay beside QEMU's user network, by two cards of one guest, and what the relay takes for many sheds.

The guest is a bare one: the boot kit's kernel and interpreter, and a client that asks a server on this machine's
loopback, in turn by each card.  ``SHED_BENCH_MIB`` is the size of a transfer, 64 without it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import stat
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from benchmarks.world import world
from shed.backends.qemu import accel, command, tsc
from shed.egress.network import netns
from shed.egress.orders import Orders
from shed.egress.process import NetdProcess
from shed.egress.rules.hostports import HOST, HostPort
from shed.egress.rules.profiles import BUILT_IN
from shed.entries import Entry
from shed.images.bootkit.initrd import write_cpio

_MIB = int(os.environ.get("SHED_BENCH_MIB", "64"))
_RUNS, _SMALL, _PARALLEL = 5, 200, 200
_SHEDS = (1, 10, 50)
_IDLE = 5.0
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
/rt/lib/ld-linux-x86-64.so.2 --library-path /rt/lib /rt/bin/python3 -ISB /client.py
$b poweroff -f
"""
_SERVER = """
import os, socket, sys, tempfile, threading
most = int(sys.argv[1])
file = tempfile.TemporaryFile()
file.truncate(most)
def serve(client):
    with client:
        head = b""
        while b"\\r\\n\\r\\n" not in head:
            head += client.recv(65536)
        head, _, body = head.partition(b"\\r\\n\\r\\n")
        method, path = head.split()[:2]
        size = int(path[1:])
        if method == b"PUT":
            left, buffer = size - len(body), bytearray(1 << 18)
            while left > 0:
                left -= client.recv_into(buffer)
            size = 0
        client.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % size)
        sent = 0
        while sent < size:
            sent += os.sendfile(client.fileno(), file.fileno(), sent, size - sent)
listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
print(listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
_CLIENT = """
import select, socket, time
PORT, SIZE, RUNS, SMALL, PARALLEL = {numbers}
WAYS = {{"relay": (socket.gethostbyname("{host}"), PORT), "user": ("10.0.3.2", PORT)}}
buffer = bytearray(1 << 20)
def get(where, size):
    with socket.create_connection(where) as sock:
        sock.sendall(b"GET /%d HTTP/1.0\\r\\n\\r\\n" % size)
        count = 0
        while part := sock.recv_into(buffer):
            count += part
    assert count > size
def put(where, size):
    with socket.create_connection(where) as sock:
        sock.sendall(b"PUT /%d HTTP/1.0\\r\\n\\r\\n" % size)
        for start in range(0, size, 1 << 18):
            sock.sendall(memoryview(buffer)[:min(1 << 18, size - start)])
        assert b"200" in sock.recv(1000)
def parallel(where, size):
    poll, left = select.poll(), {{}}
    for _ in range(PARALLEL):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(where)
        left[sock.fileno()] = [sock, 0]
        poll.register(sock, select.POLLOUT)
    while left:
        for fd, _ in poll.poll():
            sock, count = left[fd]
            if not count:
                sock.send(b"GET /%d HTTP/1.0\\r\\n\\r\\n" % size)
                left[fd][1] = 1
                poll.modify(fd, select.POLLIN)
            elif part := sock.recv_into(buffer):
                left[fd][1] += part
            else:
                assert count > size, count
                poll.unregister(fd)
                del left[fd]
                sock.close()
def measure(name, runs, work, *more):
    for run in range(-1, runs):
        for way, where in WAYS.items():
            print("BENCH", "begin" if run >= 0 else "warm", name, way, 0, flush=True)
            start = time.perf_counter()
            work(where, *more)
            seconds = time.perf_counter() - start
            if run >= 0:
                print("BENCH", "end", name, way, seconds, flush=True)
measure("small", SMALL, get, 5)
measure("download", RUNS, get, SIZE)
measure("upload", RUNS, put, SIZE)
measure("parallel", RUNS, parallel, SIZE // PARALLEL)
"""


def main() -> None:
    """Compare, and print what the relay takes for 1, 10 and 50 sheds."""
    for sheds in _SHEDS:
        _print_rest(sheds)
    with world() as data:
        seconds, burnt = _measure(data)
    for name, title in (
        ("small", "connect and one small answer"),
        ("download", f"download of {_MIB} MiB"),
        ("upload", f"upload of {_MIB} MiB"),
        ("parallel", f"{_PARALLEL} downloads at once, {_MIB} MiB together"),
    ):
        relay, user = seconds[name, "relay"], seconds[name, "user"]
        ratio = statistics.median(one / other for one, other in zip(relay, user, strict=True))
        a, b = statistics.median(relay), statistics.median(user)
        print(f"{title}: relay {a:.4f} s, user network {b:.4f} s, ratio {ratio:.2f}", flush=True)
        if name == "small":
            a, b = statistics.quantiles(relay, n=100)[-1], statistics.quantiles(user, n=100)[-1]
            print(f"  p99: relay {a:.4f} s, user network {b:.4f} s, ratio {a / b:.2f}", flush=True)
        else:
            print(f"  {_MIB / a:.0f} and {_MIB / b:.0f} MiB/s; the relay's processor: {burnt[name] / sum(relay):.0%}")


def _measure(data: Path) -> tuple[dict[tuple[str, str], list[float]], dict[str, float]]:
    """Return the guest's seconds by what was done and by which card, and the relay's seconds of processor."""
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    burnt: dict[str, float] = defaultdict(float)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(_server())
        process, network = stack.enter_context(_relay(folder)), stack.enter_context(netns.make())
        orders = Orders((BUILT_IN["internet"],), host_ports=(HostPort(port, port),))
        _open(process, "bench", orders, network)
        pid = _pid(process)
        child = stack.enter_context(_guest(data, folder, network.card, port))
        assert child.stdout is not None
        before, console = 0.0, b""
        for line in child.stdout:
            console += line
            if not line.startswith(b"BENCH "):
                continue
            _, when, name, way, text = line.decode().split()
            if when == "begin":
                before = _processor(pid)
            elif when == "end":
                seconds[name, way].append(float(text))
                burnt[name] += (_processor(pid) - before) * (way == "relay")
        child.wait()
        if len(seconds["parallel", "user"]) < _RUNS:
            sys.exit(f"the guest ended early:\n{console[-4000:].decode(errors='replace')}")
    return seconds, burnt


@contextlib.contextmanager
def _guest(data: Path, folder: Path, card: int, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a guest with both cards that runs the client."""
    kit = {
        key: str(value).removeprefix("sha256:")
        for key, value in json.loads((data / "images/kit.json").read_text()).items()
    }
    blobs, qemu = data / "images/blobs/sha256", shutil.which("qemu-system-x86_64")
    if qemu is None:
        sys.exit("the egress benchmark needs qemu-system-x86: make bench installs it")
    client = _CLIENT.format(numbers=(port, _MIB << 20, _RUNS, _SMALL, _PARALLEL), host=HOST)
    initrd = folder / "initrd"
    with initrd.open("wb") as out:
        out.write((blobs / kit["initrd"]).read_bytes())
        write_cpio([_file(b"bench-init", _INIT.encode(), 0o755), _file(b"client.py", client.encode(), 0o644)], out)
    verdict = json.loads((data / "accel.json").read_text())["accel"] if (data / "accel.json").exists() else "tcg"
    board = command.board(verdict, one_thread=verdict == "tcg" and accel.one_thread(Path(qemu)))
    words = f"{command.kernel_command_line(verdict, tsc.khz())} rdinit=/bench-init"
    runtime = f"file={blobs / kit['runtime']},if=virtio,format=raw,readonly=on"
    arguments = [
        qemu, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", *board, "-smp", "2", "-m", "1024M",
        "-kernel", str(blobs / kit["kernel"]), "-initrd", str(initrd), "-append", words, "-serial", "stdio",
        "-drive", runtime,
        "-netdev", f"tap,id=relay,fd={card},vhost=off", "-device", "virtio-net-pci,netdev=relay,romfile=",
        "-netdev", "user,id=user,net=10.0.3.0/24,host=10.0.3.2", "-device", "virtio-net-pci,netdev=user,romfile=",
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


def _file(name: bytes, data: bytes, mode: int) -> Entry:
    return Entry(name, stat.S_IFREG | mode, size=len(data), content=_Bytes(data))


@contextlib.contextmanager
def _server() -> Iterator[int]:
    """Yield the port of a server that sends and takes as many bytes as it is asked for."""
    words = [sys.executable, "-c", _SERVER, str(_MIB << 20)]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            yield int(child.stdout.readline())
        finally:
            child.kill()


@contextlib.contextmanager
def _relay(folder: Path) -> Iterator[NetdProcess]:
    """Yield a relay's process of its own, which ends with the block."""
    process = NetdProcess(folder, folder)
    with contextlib.closing(process.watch()[0]):  # or it would end for want of sheds
        try:
            yield process
        finally:
            for shed in process.sheds():
                process.close(shed)


def _open(process: NetdProcess, shed: str, orders: Orders, network: netns.Netns) -> None:
    sockets = [socket.socket(fileno=os.dup(descriptor)) for descriptor in network.sockets]
    process.open(shed, orders, sockets)
    for sock in sockets:
        sock.close()


def _pid(process: NetdProcess) -> int:
    with contextlib.closing(process.watch()[0]) as watch:
        return int(struct.unpack("3i", watch.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


def _processor(pid: int) -> float:
    """Return the seconds of processor that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _print_rest(sheds: int) -> None:
    """Print what a relay takes that has so many sheds, and nothing to do."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        process = stack.enter_context(_relay(folder))
        for number in range(sheds):
            network = stack.enter_context(netns.make())
            _open(process, f"shed-{number}", Orders((BUILT_IN["internet"],)), network)
        pid = _pid(process)
        before = _processor(pid)
        time.sleep(_IDLE)
        burnt = (_processor(pid) - before) / _IDLE
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        resident = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
        aim = 40 + 0.3 * sheds
        print(
            f"relay of {sheds} sheds at rest: {resident:.1f} MiB (aim {aim:.1f}), {burnt:.1%} of a processor",
            flush=True,
        )
