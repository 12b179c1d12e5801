"""A real guest behind the relay: what it reaches, what it does not, and what outlives the server."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from shed.client.sync.shed import RUNTIME
from shed.oci.store import LayoutStore
from support.vms.ruled import PYTHON, RuledHost, relay, ruled_host
from support.waiting import wait_until

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]
PUBLIC = "93.184.216.34"
FETCH = f"{RUNTIME} wget -q -T 30 -O - "


UDP = """
import socket, sys
for port in (53, 123, 443, 7):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(1)
    sock.sendto(b"x", (sys.argv[1], port))
    try:
        print("answered", port, sock.recv(100))
    except OSError:
        pass
print("nothing")
"""


@pytest.fixture(scope="module")
def host(way: str, small_store: LayoutStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RuledHost]:
    """A host with the shed dev."""
    with ruled_host(way, small_store, tmp_path_factory.mktemp("egress")) as made:
        yield made


def test_a_guest_reaches_what_its_rules_allow(host: RuledHost) -> None:
    """By name, from the guest's own resolver on; the log says what, by which rule, and how much."""
    host.net.names({"www.example.com": [PUBLIC]})
    host.rule({"allow": "www.example.com"})
    assert host.sh(f"{FETCH} http://www.example.com/hello") == (0, "hello\n")
    wait_until(lambda: bool(host.log()), what="the log has it")  # when the connection has ended
    (entry,) = host.log()
    assert (entry["name"], entry["address"], entry["rule"]) == (
        "www.example.com",
        PUBLIC,
        "mine: allow www.example.com",
    )
    assert entry["received"] > 0
    shown = host.api.shed_egress("dev")
    assert (shown["profiles"], shown["rules"], shown["problem"]) == (["mine"], ["mine: allow www.example.com"], "")


def test_the_default_reaches_the_internet_and_nothing_private(host: RuledHost) -> None:
    """Names and bare addresses; not the host, whatever its addresses are, nor what is behind it."""
    host.net.names({"www.example.com": [PUBLIC], "inside.example.com": ["10.1.2.3"]})
    host.api.set_shed_egress("dev", ["internet"])
    assert host.sh(f"{FETCH} http://www.example.com/hello") == (0, "hello\n")
    assert host.sh(f"{FETCH} http://{PUBLIC}/hello") == (0, "hello\n")
    listener = host.net.start_in_host("exec python3 -u -m http.server 8000 --bind 0.0.0.0", **os.environ)
    assert listener.poll() is None
    for there in (
        "10.0.2.2:8000",
        "127.0.0.1:8000",
        "100.127.0.1:8000",
        "100.127.0.2:80",
        "inside.example.com",
        "169.254.169.254",
    ):
        code, said = host.sh(f"{FETCH} http://{there}/")
        assert code != 0, (there, said)
        assert "403" in said or "refused" in said, (there, said)  # its own loopback is its own


def test_nothing_but_tcp_leaves_a_guest(host: RuledHost) -> None:
    """Ping, UDP and raw frames find nobody; the neighbours are not there either."""
    host.api.set_shed_egress("dev", ["internet"])
    assert host.sh(f"{RUNTIME} ping -c 1 -W 1 {PUBLIC}")[0] != 0
    assert host.sh(f"{RUNTIME} ping -c 1 -W 5 10.0.2.2")[0] == 0
    done = host.machine.try_shed("exec", "--user", "root", "dev", "--", *PYTHON, UDP, PUBLIC)
    assert done.stdout.decode() == "nothing\n", done.stderr


def test_new_addresses_and_routes_do_not_help(host: RuledHost) -> None:
    """A guest's root may do with its card what it likes."""
    host.rule()
    tricks = (
        f"{RUNTIME} ip addr add 192.0.2.99/24 dev eth0; {RUNTIME} ip route add 8.8.8.8 dev eth0; "
        f"{RUNTIME} ip link set eth0 mtu 9000; {RUNTIME} ip neigh replace 8.8.8.8 lladdr ff:ff:ff:ff:ff:ff dev eth0"
    )
    host.sh(tricks)
    code, said = host.sh(f"{FETCH} http://8.8.8.8/hello")
    assert code != 0, said
    host.sh(f"{RUNTIME} ip addr del 192.0.2.99/24 dev eth0; {RUNTIME} ip route del 8.8.8.8")


def test_sheds_do_not_reach_each_other(host: RuledHost) -> None:
    """Each is alone in its namespace, although both have the same address there."""
    host.machine.shed("create", "other", "--image", "busybox")
    host.sh(f"{RUNTIME} nc -ll -p 9 -e echo hello < /dev/null > /dev/null 2>&1 &", shed="other")
    host.api.set_shed_egress("dev", ["internet"])
    for address in ("10.0.2.15", "10.0.2.2"):
        assert "hello" not in host.sh(f"{RUNTIME} nc -w 3 {address} 9")[1]
    host.machine.shed("delete", "--force", "other")


def test_a_connection_outlives_the_server(host: RuledHost) -> None:
    """The relay is a process of its own; what the server's end leaves is found by the next one."""
    host.net.names({"echo.example.com": [PUBLIC]})
    host.rule({"allow": "echo.example.com"})
    loop = f"while true; do echo x; sleep 0.2; done | {RUNTIME} nc echo.example.com 7 > /tmp/echoed"
    host.sh(f"rm -f /tmp/echoed; ({loop}) < /dev/null > /dev/null 2>&1 &")

    def lines() -> int:
        return int(host.sh(f"{RUNTIME} wc -l < /tmp/echoed || echo 0")[1].split()[-1])

    wait_until(lambda: lines() > 2, what="the echo answers")
    host.server.send_signal(signal.SIGKILL)
    host.server.wait()
    host.start_server()
    before = lines()
    wait_until(lambda: lines() > before + 2, what="the echo goes on")
    assert host.api.shed_egress("dev")["connections"] == 1
    host.rule()
    wait_until(lambda: host.api.shed_egress("dev")["connections"] == 0, what="new rules cut it")


def test_a_relay_that_is_killed_is_started_again(host: RuledHost) -> None:
    """By the server, with the sockets of the VMs that run."""
    host.net.names({"www.example.com": [PUBLIC]})
    host.rule({"allow": "www.example.com"})
    os.kill(relay(host.machine), signal.SIGKILL)
    wait_until(lambda: host.sh(f"{FETCH} http://www.example.com/hello") == (0, "hello\n"), what="the network is back")


def test_a_shed_that_is_started_again_has_its_rules(host: RuledHost) -> None:
    """And a network namespace anew."""
    host.net.names({"www.example.com": [PUBLIC]})
    host.rule({"allow": "www.example.com"})
    host.machine.shed("stop", "dev")
    assert host.api.shed_egress("dev")["profiles"] == ["mine"]
    host.machine.shed("start", "dev")
    assert host.sh(f"{FETCH} http://www.example.com/hello") == (0, "hello\n")
    assert host.sh(f"{FETCH} http://{PUBLIC}/hello")[0] != 0
