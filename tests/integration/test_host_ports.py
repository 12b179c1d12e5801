"""Ports of the host that a shed was given, by the relay between real namespaces: that one, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from support.servers.netlab import Lab, lab
from support.waiting import wait_until

pytestmark = pytest.mark.root
HOST = "host.shed.internal"
SERVE = """
import socket, threading
listeners = [socket.create_server(("127.0.0.1", port), backlog=64) for port in (5432, 5433)]
listeners.append(socket.create_server(("::1", 5434), family=socket.AF_INET6))
def serve(listener):
    while True:
        client = listener.accept()[0]
        threading.Thread(target=echo, args=(client, listener.getsockname()[1]), daemon=True).start()
def echo(client, port):
    with client:
        client.sendall(f"{port}\\n".encode())
        while data := client.recv(65536):
            client.sendall(data)
for listener in listeners:
    threading.Thread(target=serve, args=(listener,)).start()
print("ready", flush=True)
"""
TALK = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=30) as sock:
        sock.sendall(b"hello")
        sock.shutdown(socket.SHUT_WR)
        got = b""
        while part := sock.recv(65536):
            got += part
        print(got.decode())
except OSError as error:
    print("no", type(error).__name__)
"""
HOLD = """
import socket, sys
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60)
print(sock.recv(100).decode().strip(), flush=True)
try:
    print("cut", sock.recv(1))
except ConnectionResetError:
    print("cut b''")
"""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab whose host listens on ports 5432, 5433 and, by IPv6, 5434 of its loopback."""
    with lab(tmp_path_factory.mktemp("lab")) as made:
        program = made.folder / "serve.py"
        program.write_text(SERVE)
        made.start_in_host(f"exec {sys.executable} {program}")
        yield made


def order(net: Lab, *host_ports: str, rules: tuple[dict[str, object], ...] = ()) -> int:
    """Give the shed these ports of the host, and these rules alone; return how many connections that cut."""
    profiles = {"mine": {"rules": list(rules), "log": "all"}}
    orders = {"profiles": profiles, "host_ports": list(host_ports)}
    return int(net.do({"do": "rule", "shed": "dev", "orders": orders})["cut"])


def talk(net: Lab, host: str, port: int) -> str:
    """Say hello there from the guest, and return the answer."""
    return net.python(TALK, host, str(port)).strip()


def test_a_port_of_the_host_is_reached_by_its_name(net: Lab) -> None:
    """Under the number that it has for the shed; the log says by what."""
    order(net, "5432:15432", "5434:5434")
    assert talk(net, HOST, 15432) == "5432\nhello"
    last = net.decisions()[-1]
    assert (last["name"], last["address"], last["port"]) == (HOST, "127.0.0.1", 15432)
    assert (last["allowed"], last["rule"]) == (True, "host-port 5432:15432")
    assert talk(net, HOST, 5434) == "5434\nhello", "what listens by IPv6 alone is found, too"


@pytest.mark.parametrize("rules", [(), ({"allow": "*"}, {"allow": "0.0.0.0/0"}, {"allow": "127.0.0.0/8"})])
def test_nothing_else_of_the_host_is_reached(net: Lab, rules: tuple[dict[str, object], ...]) -> None:
    """Neither its other ports by that name, nor that port by another name or address, whatever the rules allow."""
    net.names({HOST: ["93.184.216.34"], "evil.example.com": ["127.0.0.1"], f"x.{HOST}": ["127.0.0.1"]})
    order(net, "5432:15432", rules=rules)
    for host, port in (
        (HOST, 5432), (HOST, 5433), (HOST, 80), ("127.0.0.2", 15432), ("10.0.2.2", 15432), ("10.0.2.2", 5432),
        ("100.127.0.1", 5432), ("evil.example.com", 5432), ("evil.example.com", 15432), (f"x.{HOST}", 15432),
    ):  # fmt: skip
        assert talk(net, host, port).startswith("no "), (host, port)
    assert talk(net, HOST.upper() + ".", 15432) == "5432\nhello"


def test_no_name_server_is_asked_for_the_hosts_name(net: Lab) -> None:
    """It is answered without one, and what a name server says of it means nothing."""
    net.names({HOST: ["93.184.216.34"]})
    order(net, rules=({"allow": "*"},))
    assert net.python("import socket, sys; print(socket.gethostbyname(sys.argv[1]))", HOST).startswith("198.1")
    assert talk(net, HOST, 80).startswith("no ")
    assert net.decisions()[-1]["rule"] == "port 80 of the host is not open to this shed"


def test_denials_and_no_profile_at_all_hold_for_the_host_too(net: Lab) -> None:
    """`egress off` lets nothing out, and a denial comes before what allows."""
    order(net, "5432:5432", rules=({"deny": HOST},))
    assert talk(net, HOST, 5432).startswith("no ")
    assert net.decisions()[-1]["rule"] == f"mine: deny {HOST}"
    net.do({"do": "rule", "shed": "dev", "orders": {"profiles": {}, "host_ports": ["5432:5432"]}})
    assert talk(net, HOST, 5432).startswith("no ")


def test_what_is_taken_away_is_cut(net: Lab) -> None:
    """So is a connection whose port leads elsewhere from now on; others go on."""
    order(net, "5432:5432", "5433:5433")
    held = [net.start_in_guest(HOLD, HOST, port) for port in ("5432", "5433")]
    assert [child.stdout.readline().strip() for child in held if child.stdout] == [b"5432", b"5433"]
    wait_until(lambda: net.do({"do": "list"})["sheds"]["dev"] == 2, what="both are open")
    assert order(net, "5433:5433") == 1
    assert held[0].stdout is not None
    assert held[0].stdout.readline() == b"cut b''\n"
    assert order(net, "5432:5433") == 1, "it leads elsewhere"
    assert held[1].stdout is not None
    assert held[1].stdout.readline() == b"cut b''\n"
    assert talk(net, HOST, 5433) == "5432\nhello"
