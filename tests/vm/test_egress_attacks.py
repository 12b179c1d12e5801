"""Attacks of a guest's root on its network, in a real VM; docs/security/egress.md lists them.

The wire between the host and the internet is watched meanwhile: what is on it and not expected fails the test.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shed.client.sync.shed import RUNTIME
from shed.egress.netdfiles import DECISIONS, SOCKET
from shed.oci.store import LayoutStore
from support.guests import network_attacks
from support.servers.netwatch import Watch
from support.vms.ruled import PYTHON, RuledHost, relay, ruled_host
from support.waiting import wait_until

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]
PUBLIC = "93.184.216.34"
EVERYTHING = ({"allow": "*"}, {"allow": "0.0.0.0/0"}, {"allow": "::/0"})
REFUSED = "HTTP/1.1 403 Forbidden"
BROKEN = ("", "ConnectionResetError", "BrokenPipeError", "TimeoutError", "OSError")
PROGRAM = Path(network_attacks.__file__).read_text()
FETCH = f"{RUNTIME} wget -q -T 30 -O - "
HTTP_PORT, SSH_PORT = 8642, 8643
"""Of the server, in the lab's host: nobody else is there."""
NOBODY = 65534


@pytest.fixture(scope="module")
def host(way: str, small_store: LayoutStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RuledHost]:
    """A host with the shed dev, whose server listens on TCP."""
    settings = f"http_port: {HTTP_PORT}\nssh_port: {SSH_PORT}\n"
    with ruled_host(way, small_store, tmp_path_factory.mktemp("attacks"), settings=settings) as made:
        made.net.start_name_server()
        yield made


def attack(host: RuledHost, name: str, *words: str) -> Any:
    """Run an attack in the shed dev and return what it says."""
    done = host.machine.try_shed("exec", "--user", "root", "dev", "--", *PYTHON, PROGRAM, name, *words)
    assert done.returncode == 0, done.stderr.decode() + host.machine.consoles()
    return json.loads(done.stdout)


def works(host: RuledHost) -> bool:
    """Say whether the guest reaches what a rule allows."""
    return host.sh(f"{FETCH} http://www.example.com/hello") == (0, "hello\n")


def test_only_tcp_leaves(host: RuledHost) -> None:
    """No other protocol of IP, no UDP or QUIC, no broadcast, no IPv6, no frame of any kind: even if all is allowed."""
    host.rule(*EVERYTHING)
    with Watch(host.net.host) as watch:
        assert attack(host, "protocols", PUBLIC, "8.8.8.8") == {}
        assert attack(host, "udp", PUBLIC, "10.0.2.2", "255.255.255.255", "224.0.0.251", "239.255.255.250") == []
        assert attack(host, "dhcp") == []
        assert attack(host, "six", "2606:2800:220:1::1", "64:ff9b::5db8:d822", "fe80::1", "ff02::1") == []
        answers = attack(host, "frames", PUBLIC)
        assert attack(host, "arp", "1500") == [network_attacks.GATEWAY]
        assert works(host)
    relays = f" to {network_attacks.US}"  # it takes connections to every address, and rules them then
    assert all(answer == "0x0806" or (answer.startswith("tcp ") and answer.endswith(relays)) for answer in answers)
    assert watch.seen <= {"arp", f"tcp {PUBLIC} 80", "udp 100.127.0.2 53"}
    assert f"tcp {PUBLIC} 80" in watch.seen  # it does watch


def test_names_carry_nothing_out(host: RuledHost) -> None:
    """No query leaves the host unless a rule allows its name: by any server, type, length, or by TCP."""
    host.rule({"allow": "www.example.com"})
    told = attack(host, "queries", "10.0.2.2", "8.8.8.8")
    assert attack(host, "many_names", "evil.example", "200") == {"answered": 200}
    assert works(host)
    assert not {name for name in host.net.asked() if "evil" in name}
    assert "www.example.com" in host.net.asked()
    addresses = {what: answer for what, answer in told.items() if isinstance(answer, list)}
    assert addresses
    assert all(what.startswith(("long labels", "type 1 ")) for what in addresses)
    assert attack(host, "connect", "8.8.8.8:853", "8.8.8.8:443", "dns.google:443") == dict.fromkeys(
        ("8.8.8.8:853", "8.8.8.8:443", "dns.google:443"), REFUSED
    )


def test_the_server_and_the_host_are_nowhere(host: RuledHost) -> None:
    """By any address of the host, by names that stand for them, on the server's ports and on others."""
    names = {
        "own.example.com": ["100.127.0.1"], "loop.example.com": ["127.0.0.1"], "six.example.com": ["::1"],
        "mapped.example.com": ["::ffff:127.0.0.1"], "meta.example.com": ["169.254.169.254"],
        "nat.example.com": ["64:ff9b::7f00:1"], "private.example.com": ["10.1.2.3", "fd00::1"],
    }  # fmt: skip
    host.net.names(names)
    host.rule(*EVERYTHING)
    with Watch(host.net.host, "lo") as watch:
        places = [
            f"{place}:{port}"
            for place in ("10.0.2.2", "100.127.0.1", "169.254.169.254", *names)
            for port in (HTTP_PORT, SSH_PORT, 22)
        ]
        assert attack(host, "connect", *places) == dict.fromkeys(places, REFUSED)
    assert not any(seen.startswith("tcp ") for seen in watch.seen)


def test_new_addresses_routes_and_cards_change_nothing(host: RuledHost) -> None:
    """Nor does another MAC; the guest only loses its own network by them."""
    host.rule({"allow": "www.example.com"})
    tricks = (
        "ip link set eth0 down", "ip link set eth0 address 02:00:00:00:00:77", "ip link set eth0 up",
        "ip route replace default via 10.0.2.2", "ip addr add 8.8.8.9/8 dev eth0", "ip addr add 10.0.2.77/24 dev eth0",
        "ip neigh replace 8.8.8.8 lladdr ff:ff:ff:ff:ff:ff dev eth0",
    )  # fmt: skip
    host.sh("; ".join(f"{RUNTIME} {trick}" for trick in tricks))
    assert works(host)
    with Watch(host.net.host) as watch:
        answers = attack(host, "connect", "8.8.8.8:80", "100.127.0.1:22", "198.18.7.7:80", "198.19.200.1:443")
        assert set(answers.values()) <= {REFUSED, "TimeoutError", "OSError"}
    assert watch.seen <= {"arp"}
    host.sh(f"{RUNTIME} ip addr del 8.8.8.9/8 dev eth0; {RUNTIME} ip addr del 10.0.2.77/24 dev eth0")
    assert works(host)


def test_other_sheds_are_nowhere(host: RuledHost) -> None:
    """By no address: both have the same one, each in a namespace of its own."""
    host.machine.shed("create", "other", "--image", "busybox")
    host.sh(f"{RUNTIME} nc -ll -p 9 -e echo hello < /dev/null > /dev/null 2>&1 &", shed="other")
    host.rule(*EVERYTHING)
    places = [f"{place}:9" for place in ("10.0.2.1", "10.0.2.2", "10.0.2.3", "10.0.2.16", "100.127.0.1", "other")]
    answers = attack(host, "connect", *places)
    assert set(answers.values()) <= {REFUSED, "gaierror", "OSError", "TimeoutError"}
    assert attack(host, "arp", "300") == [network_attacks.GATEWAY]
    host.machine.shed("delete", "--force", "other")


def test_floods_end_with_the_guest_served_again(host: RuledHost) -> None:
    """Half-open connections, queries from every port, and as many connections as the guest can hold."""
    host.rule({"allow": "www.example.com"})
    for flood, words in (
        ("syn_flood", (PUBLIC, "20000")), ("udp_flood", ("20000",)), ("hold", ("www.example.com", "80", "10000")),
    ):  # fmt: skip
        assert attack(host, flood, *words) > 1000
        assert host.api.shed_egress("dev")["problem"] == ""  # the server and the relay answer meanwhile
        wait_until(lambda: works(host), what=f"the guest is served after {flood}")
    assert attack(host, "scan", "198.18.0.0", "200", "80") == {REFUSED: 200}


def test_whatever_is_killed_opens_nothing(host: RuledHost) -> None:
    """The relay and the server, again and again during transfers: what is refused stays so, the rest comes back."""
    host.net.names({"www.example.com": [PUBLIC], "echo.example.com": [PUBLIC]})
    host.rule({"allow": "www.example.com"}, {"allow": "echo.example.com"})
    loop = f"while true; do {RUNTIME} nc echo.example.com 7 < /dev/zero > /dev/null; sleep 0.1; done"
    host.sh(f"({loop}) < /dev/null > /dev/null 2>&1 &")
    with Watch(host.net.host) as watch:
        for number in range(4):
            wait_until(lambda: works(host), what="the network is back")
            os.kill(relay(host.machine), signal.SIGKILL)
            if number % 2:
                host.server.send_signal(signal.SIGKILL)
                host.server.wait()
                host.start_server()
            answers = attack(host, "connect", "8.8.8.8:80", "100.127.0.1:22")
            assert set(answers.values()) <= {REFUSED, *BROKEN}
        wait_until(lambda: works(host), what="the network is back")
    host.sh("kill %1; pkill nc; true")
    assert watch.seen <= {"arp", f"tcp {PUBLIC} 80", f"tcp {PUBLIC} 7", "udp 100.127.0.2 53"}
    assert host.api.shed_egress("dev")["rules"] == ["mine: allow www.example.com", "mine: allow echo.example.com"]


def test_other_users_of_the_host_get_nothing_of_the_relay(host: RuledHost) -> None:
    """Neither its socket, nor its log, nor the sockets of a VM's namespace."""
    data, run = host.machine.data, Path(host.machine.environment["SHED_RUNTIME_DIR"])
    places = [run / SOCKET, data / "logs" / DECISIONS, *data.glob("instances/dev/*.sock")]
    assert len(places) > 2
    for place in places:
        assert place.exists()
        done = subprocess.run(
            ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "cat", str(place)],
            capture_output=True, check=False,
        )  # fmt: skip
        assert b"Permission denied" in done.stderr
        assert place.stat().st_mode & 0o077 == 0
    with socket.socket(socket.AF_UNIX) as ours:
        ours.connect(str(run / SOCKET))  # it is there, and takes its own user
