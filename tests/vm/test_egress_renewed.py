"""Watching what a real guest reaches: learned from, and over a relay of another version."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from shed.client.sync.shed import RUNTIME
from shed.egress.network import netns
from shed.egress.orders import Orders
from shed.egress.process import NetdProcess
from shed.egress.rules.policy import Policy, Profile
from shed.oci.store import LayoutStore
from support.servers.netlab import OLD_RELAY
from support.vms.ruled import RuledHost, relay, ruled_host
from support.waiting import wait_until

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]
PUBLIC = "93.184.216.34"
FETCH = f"{RUNTIME} wget -q -T 30 -O - "


@pytest.fixture(scope="module")
def host(way: str, small_store: LayoutStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RuledHost]:
    """A host with the shed dev."""
    with ruled_host(way, small_store, tmp_path_factory.mktemp("egress")) as made:
        yield made


def test_a_server_finds_a_relay_of_another_version(host: RuledHost) -> None:
    """It goes on with its connections, new ones go through a new one, and new rules hold for both."""
    host.net.names({"echo.example.com": [PUBLIC], "www.example.com": [PUBLIC]})
    host.rule({"allow": "*.example.com"})
    for pid in (host.server.pid, relay(host.machine)):
        os.kill(pid, signal.SIGKILL)
    host.server.wait()
    run, logs = Path(host.machine.environment["SHED_RUNTIME_DIR"]), host.machine.data / "logs"
    old = host.net.start_program(OLD_RELAY, run, logs)
    orders = Orders((Profile.parse("mine", {"rules": [{"allow": "*.example.com"}]}),))
    sockets = netns.take(host.machine.data / "instances/dev")
    NetdProcess(run, logs).open("dev", orders, sockets)
    for sock in sockets:
        sock.close()
    host.start_server()
    wait_until(lambda: old.poll() is not None, what="it has retired, and ended")
    # By the new one, once it is there.
    wait_until(lambda: host.sh(f"{FETCH} http://www.example.com/hello") == (0, "hello\n"))


def test_what_a_command_needs_is_learned(host: RuledHost, tmp_path: Path) -> None:
    """Names and ports, refused ones included; as a file, as a diff, and kept when that is wanted."""
    names = {f"{letter}.example.com": [PUBLIC] for letter in "abc"}
    host.net.names({**names, "www.example.org": [PUBLIC]})
    host.rule({"allow": "www.example.org"})
    fetch = "; ".join(f"{FETCH} http://{name}/hello" for name in (*names, "www.example.org"))
    words = ("egress", "learn", "dev", "--", "sh", "-c", f"{fetch}; sleep 1; {fetch}; exit 3")
    done = host.machine.try_shed(*words)
    assert done.returncode == 3, done
    assert done.stderr.decode().startswith("wget: ")
    learned = yaml.safe_load(done.stdout)
    assert [rule["ports"] for rule in learned["rules"]] == [[80]] * len(learned["rules"])
    policy = Policy.of([Profile.parse("learned", learned)])
    assert all(policy.about_name(name, 80).allowed for name in (*names, "www.example.org"))
    done = host.machine.try_shed("egress", "learn", "--profile", "mine", "--save", *words[2:])
    added = [line for line in done.stdout.decode().splitlines() if line.startswith("+  - ")]
    assert added
    assert "www.example.org" not in "".join(added)
    assert host.sh(f"{FETCH} http://a.example.com/hello") == (0, "hello\n")  # the shed has that profile
