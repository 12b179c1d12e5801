"""A relay of another version makes way: no connection breaks, and none escapes the rules."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.egress.netdfiles import RETIRED
from shed.egress.orders import Orders
from shed.egress.process import NetdProcess
from shed.egress.rules.policy import Profile
from support.servers.netlab import OLD_RELAY, Lab, lab
from support.waiting import wait_until

pytestmark = pytest.mark.root
PUBLIC = "93.184.216.34"
CLIENT = """
import socket, sys
address = socket.gethostbyname("echo.example.com")
def connect():
    sock = socket.create_connection((address, 7), timeout=60)
    return sock
def echo(sock):
    sock.sendall(b"x")
    assert sock.recv(1) == b"x"
held = [connect()]
for line in sys.stdin:
    if line == "more\\n":
        held.append(connect())
    try:
        for sock in held:
            echo(sock)
        print("all", len(held), flush=True)
    except (OSError, AssertionError):
        print("cut", flush=True)
"""


def orders(*rules: dict[str, object]) -> Orders:
    """Return orders with one profile."""
    return Orders((Profile.parse("mine", {"rules": list(rules)}),))


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Lab]:
    """A lab whose relay is of an older version."""
    with lab(tmp_path) as made:
        made.netd.kill()
        made.netd.wait()
        made.netd = made.start_program(OLD_RELAY)
        made.names({"echo.example.com": [PUBLIC]})
        yield made


@pytest.fixture
def client(net: Lab) -> Iterator[subprocess.Popen[str]]:
    """A program in the guest with a connection to an echo server."""
    net.open()
    net.rule({"allow": "echo.example.com"})
    resolv = net.folder / "resolv.conf"
    resolv.write_text("nameserver 10.0.2.2\n")
    command = f"mount --bind {resolv} /etc/resolv.conf && exec {sys.executable} -c '{CLIENT}'"
    with subprocess.Popen(
        ["ip", "netns", "exec", net.guest, "sh", "-c", command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert said(child, "all") == "all 1\n"
        yield child
        child.kill()


def said(client: subprocess.Popen[str], word: str) -> str:
    """Tell the client something and return its answer."""
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(f"{word}\n")
    client.stdin.flush()
    return client.stdout.readline()


def test_connections_outlive_the_relay_that_made_them_way(net: Lab, client: subprocess.Popen[str]) -> None:
    """Those there are go on in the old process, new ones go through the new one, by the addresses that names had; new
    rules cut both, and the old process ends with its last connection.
    """
    old, process = net.netd, NetdProcess(net.folder, net.folder)
    assert process.renew()
    net.netd = net.start_netd()
    assert not process.renew()
    process.open("dev", orders({"allow": "echo.example.com"}), net.sockets)
    assert said(client, "more") == "all 2\n"
    assert process.sheds() == {"dev": 1}
    assert process.flows().get("dev", 0) == 2
    assert old.poll() is None
    assert process.rule("dev", orders({"allow": "other.example.com"})) == 2
    assert said(client, "all") == "cut\n"
    wait_until(lambda: old.poll() is not None, what="the old process ends")
    assert [entry["cut"] for entry in net.decisions() if entry.get("cut")] == [True, True]
    assert process.flows().get("dev", 0) == 0
    assert not list(net.folder.glob(f"{RETIRED}*"))


def test_one_that_has_retired_and_does_not_understand_new_rules_lets_nothing_on(
    net: Lab, client: subprocess.Popen[str]
) -> None:
    """What a later version has in its rules may be what forbids the connection."""
    process = NetdProcess(net.folder, net.folder)
    assert process.renew()
    net.netd = net.start_netd()
    process.open("dev", orders({"allow": "echo.example.com"}), net.sockets)
    assert said(client, "all") == "all 1\n"
    process._rule_retired("dev", Newer((Profile.parse("mine", {"rules": [{"allow": "echo.example.com"}]}),)))
    assert said(client, "all") == "cut\n"


class Newer(Orders):
    """Orders of a later version."""

    def to_json(self) -> dict[str, object]:
        """Return rules with a member that nobody knows yet."""
        return {"profiles": {"mine": {"rules": [{"allow": "echo.example.com", "only_on": "sundays"}]}}}


def test_a_server_that_ends_while_the_relay_retires_leaves_it_to_the_next(
    net: Lab, client: subprocess.Popen[str]
) -> None:
    """The next one finds the process retired under its old name, and goes on from there."""
    assert net.do({"do": "retire"}) == {"ok": True}
    assert "error" in net.do({"do": "open", "shed": "dev", "orders": {}}, net.sockets)
    process = NetdProcess(net.folder, net.folder)
    assert process.renew()
    net.netd = net.start_netd()
    process.open("dev", orders({"allow": "echo.example.com"}), net.sockets)
    assert said(client, "more") == "all 2\n"
