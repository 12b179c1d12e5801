"""The Connect API of a real server process: halves, resets, slow readers, and what is refused.  Fake VMs: port 7
echoes, port 9 pours.
"""

import contextlib
import json
import os
import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.ports import free_port
from support.servers.running import Running
from support.servers.world import World
from support.waiting import wait_until

END_WITHIN = 60


@pytest.fixture
def dev(world: World) -> Iterator[Running]:
    """A server that listens on TCP too, with one shed."""
    (world.paths.data.parent / "port").write_text(str(free_port()))
    running = Running(world)
    assert running.request("POST", "/api/sheds", '{"name": "dev"}')[0] == 201
    yield running
    running.end()


def tcp(server: Running) -> socket.socket:
    """Return a connection to the TCP port."""
    port = int((server.world.paths.data.parent / "port").read_text())
    return socket.create_connection(("127.0.0.1", port), timeout=END_WITHIN)


def upgrade(client: socket.socket, port: int, early: bytes = b"", token: str = "none") -> socket.SocketIO:
    """Connect to a port of the shed."""
    head = (
        f"GET /api/sheds/dev/connect/{port} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: shed-tcp\r\n"
    )
    client.sendall(f"{head}Authorization: Bearer {token}\r\n\r\n".encode() + early)
    reader = client.makefile("rb", buffering=0)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += reader.read(1)
    assert answer.startswith(b"HTTP/1.1 101 ")
    return reader


def reset(client: socket.socket) -> bool:
    """Read on; say whether it ends with a reset."""
    try:
        while client.recv(1 << 20):
            pass
    except ConnectionResetError:
        return True
    return False


def memory(pid: int) -> int:
    """Return the resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def vm(server: Running) -> int:
    """Return the process id of the shed's VM."""
    return int(json.loads(server.request("GET", "/api/sheds/dev")[1])["pid"])


def test_either_half_may_end_first(dev: Running) -> None:
    """The client's end is passed on, and what comes after it arrives; over TCP and over the Unix socket."""
    for connect in (dev.connect, lambda: tcp(dev)):
        with connect() as client, upgrade(client, 7, b"early ", token=dev.secret()) as reader:
            client.sendall(b"late")
            client.shutdown(socket.SHUT_WR)
            assert reader.readall() == b"early late"


def test_the_program_may_end_first(dev: Running) -> None:
    """Port 10 ends its side at once, and then tells the console what it reads."""
    with tcp(dev) as client, upgrade(client, 10, token=dev.secret()) as reader:
        assert reader.read() == b""
        client.sendall(b"said after your end")
        client.shutdown(socket.SHUT_WR)
    wait_until(lambda: b"said after your end" in dev.request("GET", "/api/sheds/dev/logs")[1])


@pytest.mark.parametrize("how", ["the VM is killed", "the server ends"])
def test_what_is_cut_is_no_proper_end(dev: Running, how: str) -> None:
    """A client in the middle of a download gets a reset, not the end of the file; also on an idle connection."""
    with (
        tcp(dev) as pouring,
        tcp(dev) as idle,
        upgrade(pouring, 9, token=dev.secret()),
        upgrade(idle, 7, token=dev.secret()),
    ):
        if how == "the VM is killed":
            os.kill(vm(dev), signal.SIGKILL)
        else:
            dev.process.terminate()
        assert reset(pouring)
        assert reset(idle)


def test_a_cut_is_told_on_the_unix_socket_too(dev: Running) -> None:
    """There is no reset there: a connection that is cut hangs up with our own half still open, one that ended does
    not.
    """
    with dev.connect() as client, upgrade(client, 10, token=dev.secret()):
        assert client.recv(1) == b""
        assert not hung_up(client)
    with dev.connect() as client, upgrade(client, 7):
        os.kill(vm(dev), signal.SIGKILL)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
        assert hung_up(client)


def hung_up(client: socket.socket) -> bool:
    """Say whether the other side has closed both halves."""
    poll = select.poll()
    poll.register(client, 0)
    return bool(poll.poll(0))


def test_a_client_that_is_killed_ends_the_connection_in_the_shed(dev: Running) -> None:
    """Port 9 pours for as long as somebody takes it, and tells the console when nobody does."""
    client = tcp(dev)
    upgrade(client, 9, token=dev.secret()).close()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    wait_until(lambda: b"nobody takes it" in dev.request("GET", "/api/sheds/dev/logs")[1])


@pytest.mark.parametrize("port", [9, 11])
def test_a_slow_side_costs_the_server_no_memory(dev: Running, port: int) -> None:
    """Port 9 pours to a client that does not read; port 11 does not read what the client pours."""
    before = memory(dev.process.pid)
    with tcp(dev) as client, upgrade(client, port, token=dev.secret()):
        client.setblocking(False)
        taken = 0
        while port == 11 and select.select([], [client], [], 1)[1]:
            with contextlib.suppress(BlockingIOError):
                taken += client.send(bytes(1 << 20))
        assert dev.request("GET", "/api/sheds/dev")[0] == 200
        assert memory(dev.process.pid) - before < 24 << 20
        assert taken < 64 << 20


def refusal(server: Running, port: str = "7") -> tuple[int, str]:
    """Return status and code of a connect that is refused."""
    status, body = server.request("GET", f"/api/sheds/dev/connect/{port}", Connection="Upgrade", Upgrade="shed-tcp")
    return status, json.loads(body)["error"]["code"]


def test_a_shed_that_does_not_run_is_not_started(dev: Running) -> None:
    """503, for people and for tunnels that wait until it is back."""
    assert dev.request("POST", "/api/sheds/dev/stop")[0] == 200
    assert refusal(dev) == (503, "SHED_NOT_RUNNING")
    assert json.loads(dev.request("GET", "/api/sheds/dev")[1])["status"] == "stopped"
    assert dev.request("DELETE", "/api/sheds/dev")[0] == 200
    assert refusal(dev) == (404, "SHED_NOT_FOUND")


def test_a_vm_that_died_a_moment_ago_is_a_failed_connect(dev: Running) -> None:
    """Whatever the server knew of it: 502 or 503, never an internal error."""
    os.kill(vm(dev), signal.SIGKILL)
    assert refusal(dev) in {(502, "CONNECT_FAILED"), (503, "SHED_NOT_RUNNING")}
