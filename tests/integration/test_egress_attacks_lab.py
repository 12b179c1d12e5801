"""Attacks of a guest's root on its network, in namespaces: what leaves the host is seen on its wire.

`tests/vm/test_egress_attacks.py` runs the same program in a VM.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.guests import network_attacks
from support.servers.netlab import Lab, lab
from support.servers.netwatch import Watch
from support.waiting import wait_until

pytestmark = pytest.mark.root
PUBLIC = "93.184.216.34"
PROGRAM = Path(network_attacks.__file__)
EVERYTHING = ({"allow": "*"}, {"allow": "0.0.0.0/0"}, {"allow": "::/0"})
REFUSED = "HTTP/1.1 403 Forbidden"
NAME_SERVER_ASKED = "udp 100.127.0.2 53"
LOOK_UP = """
import socket, sys
try:
    print(socket.getaddrinfo(sys.argv[1], 80, socket.AF_INET))
except OSError as error:
    print(error)
"""
READ = """
import sys, urllib.request, urllib.error
try:
    print(urllib.request.urlopen(f"http://{sys.argv[1]}/", timeout=30).read())
except urllib.error.HTTPError as error:
    print(error.read().decode())
"""
ELSEWHERE = """
import json, socket, ssl
def ask(request, count=1):
    with socket.create_connection(("www.example.com", 80), timeout=30) as sock:
        for _ in range(count):
            sock.sendall(request)
        got = b""
        while data := sock.recv(65536):
            got += data
    return int(got.split()[1])
def sni():
    try:
        ssl.create_default_context().wrap_socket(
            socket.create_connection(("www.example.com", 80), timeout=30), server_hostname="other.example.com")
    except OSError:
        return "no TLS"
get = b"GET /hello HTTP/1.0\\r\\nHost: other.example.com\\r\\n\\r\\n"
print(json.dumps({
    "host": ask(get), "second": ask(get, 2),
    "connect": ask(b"CONNECT other.example.com:80 HTTP/1.1\\r\\nHost: other.example.com:80\\r\\n\\r\\n"),
    "absolute": ask(b"GET http://other.example.com/hello HTTP/1.0\\r\\n\\r\\n"), "sni": sni(),
}))
"""
CONTAINER = """
set -e
trap 'kill $box; ip link del br0; nft flush ruleset' EXIT
ip link add br0 type bridge
ip addr add 172.17.0.1/16 dev br0
ip link set br0 up
unshare -n sleep 1000 > /dev/null 2>&1 &
box=$!
while [ "$(readlink /proc/$box/ns/net)" = "$(readlink /proc/$$/ns/net)" ]; do :; done
ip link add v0 type veth peer name v1 netns $box
ip link set v0 master br0 up
echo 1 > /proc/sys/net/ipv4/ip_forward
inside="nsenter -t $box -n"
$inside ip addr add 172.17.0.2/16 dev v1
$inside ip link set v1 up
$inside ip route add default via 172.17.0.1
nft 'table ip box { chain out { type nat hook postrouting priority srcnat; oifname "eth0" masquerade; }; }'
printf 'nameserver 9.9.9.9\\noptions attempts:1 timeout:5\\n' > /etc/resolv.conf
$inside "$@"
nft flush ruleset
printf 'nameserver 9.9.9.9\\noptions attempts:1 timeout:1\\n' > /etc/resolv.conf
$inside "$@"
"""
PROXY = """
import socket, sys
host, port = sys.argv[1].split(":")
with socket.create_connection((host, int(port)), timeout=30) as sock:
    sock.sendall(b"CONNECT www.example.com:80 HTTP/1.1\\r\\n\\r\\n")
    print(sock.recv(1000).decode())
"""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab, for all tests of this file."""
    with lab(tmp_path_factory.mktemp("lab")) as made:
        made.start_name_server()
        yield made


def attack(net: Lab, name: str, *words: str) -> Any:
    """Run an attack in the guest and return what it says."""
    done = net.run(sys.executable, "-I", str(PROGRAM), name, *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def works(net: Lab) -> bool:
    """Say whether the guest reaches what a rule allows."""
    return bool(attack(net, "connect", "www.example.com:80") == {"www.example.com:80": "HTTP/1.0 200 OK"})


def test_only_tcp_leaves(net: Lab) -> None:
    """No other protocol of IP, no UDP or QUIC, no broadcast, no frame of any kind, no lease: even if all is allowed."""
    net.rule(*EVERYTHING)
    with Watch(net.host) as watch:
        assert attack(net, "protocols", PUBLIC, "8.8.8.8") == {}
        assert attack(net, "udp", PUBLIC, "10.0.2.2", "255.255.255.255", "224.0.0.251", "239.255.255.250") == []
        assert attack(net, "dhcp") == []
        answers = attack(net, "frames", PUBLIC)
        assert works(net)
    relays = f" to {network_attacks.US}"  # it takes connections to every address, and rules them then
    assert all(answer == "0x0806" or (answer.startswith("tcp ") and answer.endswith(relays)) for answer in answers)
    assert watch.seen <= {"arp", f"tcp {PUBLIC} 80", NAME_SERVER_ASKED}
    assert f"tcp {PUBLIC} 80" in watch.seen  # it does watch


def test_no_spelling_of_ipv6_leaves(net: Lab) -> None:
    """Public, mapped, NAT64, 6to4, link-local, unique local and multicast addresses, also with a router advertised."""
    net.rule(*EVERYTHING)
    with Watch(net.host) as watch:
        found = attack(
            net, "six", "2606:2800:220:1::1", "::ffff:93.184.216.34", "64:ff9b::5db8:d822", "2002:5db8:d822::1",
            "fe80::1", "fd00:ec2::254", "ff02::1", "::1",
        )  # fmt: skip
    # the guest's own kernel makes IPv4 of a mapped address, and that is ruled as IPv4
    assert [answer for answer in found if answer[0] != "::ffff:93.184.216.34"] == []
    assert watch.seen <= {"arp", f"tcp {PUBLIC} 80"}


def test_a_guest_takes_nothing_of_the_hosts_neighbour_table(net: Lab) -> None:
    """The namespace answers for the gateway alone, and notes nobody else: the whole host has one such table."""
    table = Path("/proc/net/stat/arp_cache")
    before = int(table.read_text().splitlines()[1].split()[0], 16)
    assert attack(net, "arp", "1500") == [network_attacks.GATEWAY]
    after = int(table.read_text().splitlines()[1].split()[0], 16)
    assert after - before < 300, "other tests may add some"


def test_addresses_of_the_host_are_refused_by_every_name_and_number(net: Lab) -> None:
    """Whatever is allowed, and on the ports of services that are there."""
    net.rule(*EVERYTHING)
    net.start_in_host("exec python3 -u -m http.server 8000 --bind 0.0.0.0")
    places = [
        f"{host}:{port}"
        for host in ("10.0.2.2", "100.127.0.1", "100.127.0.3", "169.254.169.254", "192.0.0.192", "255.255.255.255")
        for port in (1, 22, 80, 8000)
    ]
    answers = attack(net, "connect", *places)
    assert {place: answer for place, answer in answers.items() if answer not in {REFUSED, "OSError"}} == {}
    assert works(net)


def test_made_up_addresses_are_found_by_nobody_who_did_not_ask(net: Lab) -> None:
    """A scan of what the name service answers with finds nothing."""
    net.rule(*EVERYTHING)
    assert attack(net, "scan", "198.18.0.0", "300", "80") == {REFUSED: 300}


def test_names_carry_nothing_out(net: Lab) -> None:
    """Of all queries, to any server and by TCP too, none leaves the host unless a rule allows its name."""
    net.rule({"allow": "www.example.com"}, {"deny": "secret.example.com"})
    with Watch(net.host) as watch:
        told = attack(net, "queries", "10.0.2.2", "8.8.8.8")
        assert attack(net, "many_names", "evil.example", "300") == {"answered": 300}
        assert works(net)
    assert "udp 8.8.8.8 53" not in watch.seen
    assert not {name for name in net.asked() if "evil" in name or "secret" in name}
    assert "www.example.com" in net.asked()
    addresses = {what: answer for what, answer in told.items() if isinstance(answer, list)}
    assert {what.partition(" ")[0] for what in addresses} == {"long", "type"}
    assert all(what.startswith(("long labels", "type 1 ")) for what in addresses)
    assert all(answer[0].startswith(("198.18.", "198.19.")) for answer in addresses.values())


def test_a_name_is_never_completed(net: Lab) -> None:
    """The host's search list makes no other names of what the rules were asked about.

    A name without a dot, which only the host's network can know, is opened by a rule for it alone.
    """
    net.rule({"deny": "*.corp.example"}, {"allow": "*"})
    assert "Name or service not known" in net.python(LOOK_UP, "missing.wiki")
    assert attack(net, "connect", "wiki:80") == {"wiki:80": REFUSED}
    assert "missing.wiki" in net.asked()
    assert net.asked().isdisjoint({"missing.wiki.corp.example", "wiki.corp.example", "wiki"})


def test_a_refusal_does_not_tell_addresses(net: Lab) -> None:
    """What the host's network has for a name is in the log, and not told to the shed."""
    net.rule(*EVERYTHING)
    told = net.python(READ, "inside.corp.example")
    assert "its address is in a private network" in told
    assert "10.1.2.3" not in told
    assert net.decisions()[-1]["address"] == "10.1.2.3"


@pytest.mark.parametrize(
    ("flood", "words"),
    [
        ("syn_flood", (PUBLIC, "30000")),
        ("udp_flood", ("30000",)),
        ("hold", ("www.example.com", "80", "10000")),
    ],
    ids=["half-open", "queries", "connections"],
)
def test_after_a_flood_the_guest_is_served_again(net: Lab, flood: str, words: tuple[str, ...]) -> None:
    """And while it lasts nobody else has to wait: the relay answers."""
    net.rule({"allow": "www.example.com"}, log="refused")
    assert attack(net, flood, *words) > 1000
    assert "dev" in net.do({"do": "list"})["sheds"]
    wait_until(lambda: works(net), what="the guest is served", seconds=60)


def test_the_smallest_segments(net: Lab) -> None:
    """A connection with segments of some dozen bytes works; the host sends no smaller ones than it has to."""
    net.rule({"allow": "93.184.0.0/16"})
    assert attack(net, "smallest_segments", PUBLIC, "7") == 100_000


@pytest.mark.parametrize(
    ("rule", "name", "leads"),
    [
        ("*.example.com", "www.example.com", True),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "WWW.EXAMPLE.COM.", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "notexample.com", False),
        ("*.example.com", "www.example.com.evil.test", False),
        ("www.example.com", "xn--www-example-com-test", False),
        ("xn--bcher-kva.example", "xn--bcher-kva.example", True),
        ("xn--bcher-kva.example", "bcher-kva.example", False),
    ],
)
def test_a_name_is_another_name(net: Lab, rule: str, name: str, leads: bool) -> None:
    """Subdomains, dots at the end, capitals and punycode, as the guest's own resolver sends them."""
    net.rule({"allow": rule})
    assert attack(net, "connect", f"{name}:80") == {f"{name}:80": "HTTP/1.0 200 OK" if leads else REFUSED}


def test_what_is_said_in_a_connection_leads_nowhere_else(net: Lab) -> None:
    """Another Host, a second request, CONNECT, an absolute URL, another SNI: all go to the connected name."""
    net.names({"www.example.com": [PUBLIC], "other.example.com": ["93.184.216.35"]})
    net.rule({"allow": "www.example.com"})
    with Watch(net.host) as watch:
        told = json.loads(net.python(ELSEWHERE))
    assert told == {"host": 200, "second": 200, "connect": 501, "absolute": 404, "sni": "no TLS"}
    assert watch.seen <= {"arp", f"tcp {PUBLIC} 80"}


def test_a_relay_for_connect_is_none(net: Lab) -> None:
    """Neither the gateway nor the relay's own port is a proxy."""
    net.rule({"allow": "www.example.com"})
    for place in ("10.0.2.2:1", "10.0.2.2:3128", "10.0.2.2:1080"):
        assert "403" in net.python(PROXY, place)


def test_containers_in_a_guest_are_ruled_like_the_guest(net: Lab) -> None:
    """Behind a bridge, with a name server of their own; without the guest's address they reach nothing at all."""
    net.rule({"allow": "www.example.com"})
    ask = [sys.executable, "-I", str(PROGRAM), "connect", "www.example.com:80", "8.8.8.8:80"]
    with Watch(net.host) as watch:
        done = net.run("sh", "-c", CONTAINER, "sh", *ask)
        assert done.returncode == 0, done.stderr
        behind, bare = map(json.loads, done.stdout.splitlines())
    assert behind == {"www.example.com:80": "HTTP/1.0 200 OK", "8.8.8.8:80": REFUSED}
    assert set(bare.values()) <= {"gaierror", "TimeoutError"}
    assert watch.seen <= {"arp", f"tcp {PUBLIC} 80", NAME_SERVER_ASKED}


def test_a_message_of_thousands_of_records_stops_nobody(net: Lab) -> None:
    """It is not taken apart."""
    net.rule()
    told = attack(net, "queries", "10.0.2.2")
    assert told["records tcp 10.0.2.2"] == told["records udp 10.0.2.2"] == "silence"
