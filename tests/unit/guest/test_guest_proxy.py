"""TCP connections into the guest's loopback."""

import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from shed.guest import protocol as p
from support.guests.agent import PATIENCE, CutError, Host, HostStream
from support.waiting import wait_until


@contextmanager
def server(handle: Callable[[socket.socket], None], family: int = socket.AF_INET) -> Iterator[int]:
    """A TCP server for one connection; yields its port."""
    listener = socket.socket(family)
    listener.settimeout(PATIENCE)
    listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    listener.listen()

    def serve() -> None:
        connection, _ = listener.accept()
        connection.settimeout(PATIENCE)
        with connection:
            handle(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    thread.join(PATIENCE)
    assert not thread.is_alive()
    listener.close()


def dial(host: Host, port: int, early: bytes = b"") -> tuple[HostStream, bytes]:
    """Ask for a connection; return the stream and the answer, with what follows it."""
    stream = host.open(p.PORT_PROXY)
    stream.send(f"CONNECT {port}\n".encode() + early)
    answer = stream.read()
    while b"\n" not in answer:
        answer += stream.read()
    return stream, answer


def read_all(stream: HostStream) -> bytes:
    """Read to the end."""
    data = b""
    while piece := stream.read():
        data += piece
    return data


def test_bytes_go_both_ways_and_ends_are_halves(host: Host) -> None:
    """The program hears our end, and may still answer."""

    def handle(connection: socket.socket) -> None:
        data = b""
        while piece := connection.recv(65536):
            data += piece
        connection.sendall(hashlib.sha256(data).digest())

    data = os.urandom(3_000_000)
    with server(handle) as port:
        stream, answer = dial(host, port, early=data[:10])
        assert answer == b"OK\n"
        stream.send(data[10:])
        stream.end()
        assert read_all(stream) == hashlib.sha256(data).digest()


def test_the_program_may_end_first(host: Host) -> None:
    """What it reads after its own end still arrives."""
    got = []

    def handle(connection: socket.socket) -> None:
        connection.sendall(b"x" * 1_000_000)
        connection.shutdown(socket.SHUT_WR)
        got.append(connection.recv(100))

    with server(handle) as port:
        stream, answer = dial(host, port)
        assert len(answer + read_all(stream)) == 3 + 1_000_000
        stream.send(b"late")
        stream.end()
    assert got == [b"late"]


def test_ipv6_loopback(host: Host) -> None:
    """A program that listens on ::1 alone is found."""
    with server(lambda connection: connection.sendall(b"six"), socket.AF_INET6) as port:
        stream, answer = dial(host, port)
        assert answer + read_all(stream) == b"OK\nsix"


def test_nobody_listens(host: Host) -> None:
    """The reason comes back, and the stream ends."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # so that nobody else does
        port = silent.getsockname()[1]
        stream, answer = dial(host, port)
        assert answer == f"ERR port {port}: Connection refused\n".encode()
        assert read_all(stream) == b""


@pytest.mark.parametrize(
    "line", [b"CONNECT 0\n", b"CONNECT 65536\n", b"CONNECT x\n", b"GET /\n", b"\n", b"CONNECT " + b"1" * 100]
)
def test_what_is_no_port(host: Host, line: bytes) -> None:
    """Refused, without dialling."""
    stream = host.open(p.PORT_PROXY)
    stream.send(line)
    assert read_all(stream).startswith(b"ERR ")


def test_a_cut_stream_resets_the_connection(host: Host) -> None:
    """The program does not take it for a proper end when the client is gone."""
    seen = []

    def handle(connection: socket.socket) -> None:
        try:
            connection.recv(10)
        except ConnectionResetError:
            seen.append("reset")

    with server(handle) as port:
        stream, _ = dial(host, port)
        stream.reset()
    assert seen == ["reset"]


def test_a_host_that_hangs_up_resets_its_connections(host: Host) -> None:
    """As when the server is killed in the middle of traffic."""
    seen = []

    def handle(connection: socket.socket) -> None:
        try:
            while connection.recv(10):
                pass
        except ConnectionResetError:
            seen.append("reset")

    with server(handle) as port:
        stream, _ = dial(host, port)
        stream.send(b"some")
        host.close()
    assert seen == ["reset"]


def test_a_program_that_has_closed_is_told_to_the_client(host: Host) -> None:
    """Its end is an end; what is sent to it after that is refused, instead of being swallowed for ever."""
    closed = threading.Event()

    def handle(connection: socket.socket) -> None:
        connection.sendall(b"bye")
        connection.close()
        closed.set()

    with server(handle) as port:
        stream, answer = dial(host, port)
        assert answer + read_all(stream) == b"OK\nbye"
        assert closed.wait(PATIENCE)
        with pytest.raises(CutError, match="closed the connection"):
            while True:
                stream.send(b"x" * 1000)
                host.pump(0.05)
                stream.check()


def test_a_slow_client_holds_up_the_program_alone(host: Host) -> None:
    """The guest takes no more of it than the credit and the kernel's buffers."""
    sent = 0
    go = threading.Event()

    def handle(connection: socket.socket) -> None:
        nonlocal sent
        connection.settimeout(0.5)
        try:
            while True:
                sent += connection.send(bytes(65536))
        except TimeoutError:
            go.set()

    with server(handle) as port:
        stream = host.open(p.PORT_PROXY)
        stream.greedy = False
        stream.send(f"CONNECT {port}\n".encode())
        assert go.wait(PATIENCE)
        assert p.INITIAL_CREDIT < sent < 40_000_000
        assert len(host.control(op="health")) > 1  # the others are served meanwhile
        stream.reset()


def test_a_connection_that_breaks_cuts_the_stream(host: Host) -> None:
    """A reset is not an end of file."""

    def handle(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with server(handle) as port:
        stream, _ = dial(host, port)
        stream.send(b"x")
        with pytest.raises(CutError):
            read_all(stream)


def test_a_slow_program_holds_up_the_sender_alone(host: Host) -> None:
    """Backpressure reaches the host: no more than the credit and the kernel's buffers is taken."""
    go = threading.Event()

    def handle(connection: socket.socket) -> None:
        go.wait(PATIENCE)
        while connection.recv(1 << 20):
            pass

    with server(handle) as port:
        stream, _ = dial(host, port)
        sent = 0
        while stream.credit > 0 or host.pump(0.5):
            if stream.credit > 0:
                size = min(stream.credit, 65536)
                stream.send(bytes(size))
                sent += size
        assert sent < 40_000_000
        go.set()
        wait_until(lambda: host.pump(0.1) and stream.credit > 0, what="credit comes back")
        stream.end()
