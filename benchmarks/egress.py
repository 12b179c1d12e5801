"""The relay beside QEMU's user network, by two cards of one guest, and what the relay takes for many sheds.

The guest is a bare one: the boot kit's kernel and interpreter, and a client that asks a server on this machine's
loopback, in turn by each card.  ``SHED_BENCH_MIB`` is the size of a transfer, 64 without it; ``SHED_BENCH_RUNS`` how
often each is done, 5 times without it; ``SHED_BENCH_PARTS`` which ones, such as ``small,parallel``.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import Sample, paired, show
from benchmarks.twocards import PYTHON, USER_HOST, Program, give, measure, pid_of, processor, relay
from benchmarks.world import world
from shed.egress.network import netns
from shed.egress.orders import Orders
from shed.egress.rules.hostports import HOST, HostPort
from shed.egress.rules.profiles import BUILT_IN

_MIB = int(os.environ.get("SHED_BENCH_MIB", "64"))
_RUNS = int(os.environ.get("SHED_BENCH_RUNS", "5"))
_PARTS = os.environ.get("SHED_BENCH_PARTS", "rest,small,download,upload,parallel").split(",")
_BLOCK, _PARALLEL = 200, 200
"""Small exchanges in a block, of which each has percentiles of its own; downloads at once."""
_SHEDS = (1, 10, 50)
_IDLE = 5.0
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
PORT, SIZE, RUNS, BLOCK, PARALLEL, PARTS = {numbers}
WAYS = {{way: (socket.gethostbyname(host), PORT) for way, host in zip(("relay", "user"), {hosts})}}
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
for name, *work in (
    ("small", RUNS * BLOCK, get, 5),
    ("download", RUNS, get, SIZE),
    ("upload", RUNS, put, SIZE),
    ("parallel", RUNS, parallel, SIZE // PARALLEL),
):
    if name in PARTS:
        measure(name, *work)
"""


def main() -> None:
    """Compare, and print what the relay takes for 1, 10 and 50 sheds."""
    for sheds in _SHEDS if "rest" in _PARTS else ():
        _print_rest(sheds)
    parts = [part for part in _PARTS if part != "rest"]
    if not parts:
        return
    with world() as data, _server() as port:
        client = _CLIENT.format(numbers=(port, _MIB << 20, _RUNS, _BLOCK, _PARALLEL, parts), hosts=(HOST, USER_HOST))
        orders = Orders((BUILT_IN["internet"],), host_ports=(HostPort(port, port),))
        expected = sum(_RUNS * (_BLOCK if part == "small" else 1) for part in parts)
        found = measure(data, orders, Program(f"{PYTHON} /client.py", {"client.py": client}), expected)
    if "small" in parts:
        for percent in (50, 99):
            relay, user = (_percentiles(found.seconds["small", way], percent) for way in ("relay", "user"))
            title = f"connect and one small answer, p{percent} of {_BLOCK} (a thousand)"
            show(title, "relay", "user network", paired(relay, user))
        each = found.burnt["small"] / len(found.seconds["small", "relay"])
        print(f"  the relay's processor: {each * 1e3:.2f} ms each", flush=True)
    for name, title in (
        ("download", f"download of {_MIB} MiB"),
        ("upload", f"upload of {_MIB} MiB"),
        ("parallel", f"{_PARALLEL} downloads at once, {_MIB} MiB together"),
    ):
        if name in parts:
            result = found.compared(name)
            show(title, "relay", "user network", result)
            speeds = f"{_MIB / result.a:.0f} and {_MIB / result.b:.0f} MiB/s"
            print(f"  {speeds}; the relay's processor: {found.load(name):.0%}", flush=True)


def _percentiles(seconds: list[float], percent: int) -> list[Sample]:
    """Return a percentile of each block, of a thousand."""
    blocks = [seconds[start : start + _BLOCK] for start in range(0, len(seconds), _BLOCK)]
    return [Sample(statistics.quantiles(block, n=100)[percent - 1] * 1000) for block in blocks]


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


def _print_rest(sheds: int) -> None:
    """Print what a relay takes that has so many sheds, and nothing to do."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        process = stack.enter_context(relay(folder))
        for number in range(sheds):
            network = stack.enter_context(netns.make())
            give(process, f"shed-{number}", Orders((BUILT_IN["internet"],)), network)
        pid = pid_of(process)
        before = processor(pid)
        time.sleep(_IDLE)
        burnt = (processor(pid) - before) / _IDLE
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        resident = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
        aim = 40 + 0.3 * sheds
        print(
            f"relay of {sheds} sheds at rest: {resident:.1f} MiB (aim {aim:.1f}), {burnt:.1%} of a processor",
            flush=True,
        )
