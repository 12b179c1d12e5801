"""What the guest listens on for the host: ports of its loopback and sockets."""

import socket
import stat
from pathlib import Path

import pytest

from shed.guest import protocol as p
from support.guests.agent import Agent, Host, HostStream
from support.ports import free_port
from support.waiting import wait_until


def line(stream: HostStream) -> list[str]:
    """Return the words of the next line; the guest sends no more until it is asked to."""
    data = b""
    while not data.endswith(b"\n"):
        data += stream.read()
    return data.decode().split()


def ask(host: Host, text: str) -> tuple[HostStream, list[str]]:
    """Open a stream, send a line, and return the stream and the answer."""
    stream = host.open(p.PORT_LISTEN)
    stream.send(f"{text}\n".encode())
    return stream, line(stream)


def test_a_connection_is_told_and_handed_over(host: Host) -> None:
    """On both loopback addresses, with half-close as in the proxy."""
    listening, (ok, port) = ask(host, "LISTEN tcp 0")
    assert ok == "OK"
    for address in ("127.0.0.1", "::1"):
        with socket.create_connection((address, int(port))) as program:
            number, *origin = line(listening)
            assert origin == [str(part) for part in program.getsockname()[:2]]
            stream, answer = ask(host, f"ACCEPT {number}")
            assert answer == ["OK"]
            program.sendall(b"to the host")
            assert stream.read() == b"to the host"
            program.shutdown(socket.SHUT_WR)
            stream.send(b"to the program")
            stream.end()
            assert program.recv(100, socket.MSG_WAITALL) == b"to the program"
            assert program.recv(1) == b""


def test_the_end_of_the_stream_is_the_end_of_listening(host: Host) -> None:
    """Who came and was not accepted is hung up on, and the port is free again."""
    port = free_port()
    for _ in range(2):
        listening, answer = ask(host, f"LISTEN tcp {port}")
        assert answer == ["OK", str(port)]
        with socket.create_connection(("127.0.0.1", port)) as program:
            number = line(listening)[0]
            listening.reset()
            assert program.recv(1) == b""
            assert ask(host, f"ACCEPT {number}")[1] == ["ERR", "no", "such", "connection"]


@pytest.mark.root
def test_a_host_that_hangs_up_ends_it_too(agent: Agent) -> None:
    """The next host finds nothing of the one before."""
    with agent.host() as host:
        _, (_, port) = ask(host, "LISTEN tcp 0")
        _, (_, path) = ask(host, "LISTEN unix")
    with agent.host() as host:
        wait_until(lambda: not Path(path).exists(), what="the socket is removed")
        assert ask(host, f"LISTEN tcp {port}")[1] == ["OK", port]


@pytest.mark.root
def test_a_socket_is_the_users_alone(host: Host) -> None:
    """And takes connections."""
    listening, (ok, path) = ask(host, "LISTEN unix")
    assert ok == "OK"
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as program:
        program.connect(path)
        (number,) = line(listening)
        stream, answer = ask(host, f"ACCEPT {number}")
        assert answer == ["OK"]
        program.sendall(b"hello")
        assert stream.read() == b"hello"
    listening.end()
    wait_until(lambda: not Path(path).exists(), what="the socket is removed")


def test_what_cannot_be_done_is_said(host: Host) -> None:
    """A port in use, and lines that make no sense."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert ask(host, f"LISTEN tcp {other.getsockname()[1]}")[1] == ["ERR", "Address", "already", "in", "use"]
    for text in (
        "LISTEN",
        "LISTEN tcp",
        "LISTEN tcp 65536",
        "LISTEN tcp -1",
        "LISTEN udp 1",
        "ACCEPT",
        "ACCEPT x",
        "ACCEPT 0",
        "",
        "x" * 100,
    ):
        assert ask(host, text)[1][0] == "ERR"


def test_a_crowd_is_not_kept_waiting(host: Host) -> None:
    """Beyond what may wait, connections are hung up on at once."""
    listening, (_, port) = ask(host, "LISTEN tcp 0")
    programs = [socket.create_connection(("127.0.0.1", int(port))) for _ in range(65)]
    try:
        assert programs[-1].recv(1) == b""
        listening.reset()
        assert programs[0].recv(1) == b""
    finally:
        for program in programs:
            program.close()
