"""Ports of a shed beside a plain TCP copy on loopback.

And `shed list --all` with a server that hangs, beside `shed list`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.harness import Sample, Subject, command, compare, show
from benchmarks.world import SHED, shed, world
from shed import Client, Shed
from shed.client.sync.shed import RUNTIME

_SIZE = 64 << 20
_PORT = 9


def main() -> None:
    """Compare, and print the server's memory at rest."""
    with world():
        with Client().create(image="base", memory_mb=512) as guest:
            guest.exec(
                f"{RUNTIME} nc -ll -p {_PORT} -e cat /dev/zero < /dev/null > /dev/null 2>&1 &", user="root", check=True
            )
            _wait(guest)
            with _plain() as port:
                plain = _read(lambda: socket.create_connection(("127.0.0.1", port)))
                result = compare(_read(lambda: guest.connect(_PORT)), plain)
                show(f"{_SIZE >> 20} MiB out of a shed", "Connect API", "TCP loopback", result)
                with guest.forward(_PORT) as local:
                    result = compare(_read(lambda: socket.create_connection(("127.0.0.1", local))), plain)
                    show(f"{_SIZE >> 20} MiB out of a shed", "forwarded port", "TCP loopback", result)
            pid = int(Client().info().pid or 0)
            time.sleep(2)
            print(f"server at rest, one shed running: {_resident(pid) >> 20} MiB resident", flush=True)
        _list_all()


def _list_all() -> None:
    """Three servers: this one by two names, and one that accepts and says nothing."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
        home = Path(os.environ["SHED_DATA_DIR"]).parent / "home"
        home.mkdir(exist_ok=True)
        config = home / "config.yaml"
        config.write_text(
            f"servers:\n  one: {{url: 'unix://{os.environ['SHED_RUNTIME_DIR']}/shed.sock'}}\n"
            f"  hangs: {{host: 127.0.0.1, http_port: {silent.getsockname()[1]}}}\n"
        )
        shed("list")
        result = compare(command([SHED, "-c", config, "list", "--all"]), command([SHED, "list"]), runs=3)
    show("listing three servers, one of which hangs", "shed list --all", "shed list", result)


def _wait(guest: Shed) -> None:
    while True:
        with contextlib.suppress(Exception), guest.connect(_PORT):
            return
        time.sleep(0.1)


def _read(connect: Callable[[], socket.socket]) -> Subject:
    """Return a subject that reads so many bytes of an endless stream."""

    def subject() -> Sample:
        start = time.perf_counter()
        with connect() as sock:
            left = _SIZE
            while left > 0:
                left -= len(sock.recv(1 << 17))
        return Sample(time.perf_counter() - start)

    return subject


@contextlib.contextmanager
def _plain() -> Iterator[int]:
    """Yield a loopback port that pours, in a process of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    child = os.fork()
    if child == 0:
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=_pour, args=(sock,), daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()
        os.kill(child, 9)
        os.waitpid(child, 0)


def _pour(sock: socket.socket) -> None:
    zeros = bytes(1 << 17)
    with contextlib.suppress(OSError), sock:
        while True:
            sock.sendall(zeros)


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
