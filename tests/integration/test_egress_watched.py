"""A server, its relay and a guest's network, followed and learned from."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from shed import Client
from shed.egress import netd, wire
from shed.egress.process import NetdProcess
from shed.egress.rules.policy import Policy, Profile
from support.servers.netlab import Lab, lab
from support.servers.running import Running
from support.servers.world import World

pytestmark = pytest.mark.root
PUBLIC = "93.184.216.34"
SHED = [sys.executable, "-m", "shed.cli.main"]
FETCH = """
import sys, urllib.error, urllib.request
for url in sys.argv[1:]:
    try:
        print(urllib.request.urlopen(url, timeout=30).status, flush=True)
    except urllib.error.HTTPError as error:
        print(error.code)
    except OSError as error:
        print(error)
"""
HOLD = """
import socket, sys
sock = socket.create_connection((sys.argv[1], 7), timeout=60)
sock.sendall(b"x")
print("on" if sock.recv(1) else "over", flush=True)
try:
    print("on" if sock.recv(1) else "over", flush=True)
except OSError:
    print("over", flush=True)
"""


class Watched:
    """A server whose shed dev is the lab's guest."""

    def __init__(self, net: Lab, world: World) -> None:
        self.net, self.world = net, world
        url = f"unix://{world.paths.socket}"
        self.env = {**os.environ, "SHED_SERVER": url, "HOME": str(world.paths.data.parent)}
        world.paths.run.mkdir(mode=0o700, exist_ok=True)
        net.start_program("-m shed.egress.netd", world.paths.run, world.paths.logs)
        with NetdProcess(world.paths.run, world.paths.logs).watch()[0]:  # or it would end before the server is there
            self.server = Running(world)
            self.client = Client(url)
            self.client.create("dev")

    def rule(self, *rules: dict[str, object]) -> None:
        """Have the shed be ruled by these rules alone."""
        self.client.api.set_egress_profile("mine", {"rules": list(rules), "log": "refused"})
        self.client.api.set_shed_egress("dev", ["mine"])

    def fetch(self, *urls: str) -> list[str]:
        """Return what a client in the guest gets for each."""
        return self.net.python(FETCH, *urls).splitlines()

    def cli(self, *words: str) -> subprocess.Popen[str]:
        """Start the command line."""
        pipe = subprocess.PIPE
        return subprocess.Popen([*SHED, *words], env=self.env, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """One whose profile allows www.example.com alone."""
    world = World(tmp_path).prepare()
    (tmp_path / "networks").write_text(str(tmp_path))
    (tmp_path / "lab").mkdir()
    with lab(tmp_path / "lab") as net:
        net.netd.kill()  # the server's is another one
        net.netd.wait()
        net.give_out(tmp_path)
        made = Watched(net, world)
        net.names({"www.example.com": [PUBLIC], **{f"{letter}.example.org": [PUBLIC] for letter in "abc"}})
        made.rule({"allow": "www.example.com"})
        yield made
        made.server.end()
        world.kill_machines()


def test_all_that_happens_is_told(watched: Watched) -> None:
    """Rules, refusals, connections that begin for those who ask for them, and what new rules cut."""
    kinds = ["egress", "egress.connected"]
    events = watched.client.follow_events(shed="dev", kinds=kinds, tail=1)
    assert next(events).kind == "egress.rules"
    assert watched.fetch("http://no.example.net/", "http://www.example.com/hello") == ["403", "200"]
    refused, connected = next(events), next(events)
    assert refused.decision is not None
    assert connected.decision is not None
    assert (refused.kind, refused.decision.name) == ("egress.refused", "no.example.net")
    assert not refused.decision.allowed
    assert (connected.kind, connected.decision.name) == ("egress.connected", "www.example.com")
    watched.rule({"allow": "*.example.com", "ports": [7]})
    assert [next(events).kind for _ in range(2)] == ["egress.rules"] * 2
    with subprocess.Popen(
        ["ip", "netns", "exec", watched.net.guest, sys.executable, "-c", HOLD, address_of(watched, "www.example.com")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as held:  # fmt: skip
        assert held.stdin is not None
        assert held.stdout is not None
        assert held.stdout.readline() == "on\n"
        assert next(events).kind == "egress.connected"
        watched.client.api.set_shed_egress("dev", ["offline"])
        assert held.stdout.readline() == "over\n"
    told = {event.kind: event for event in (next(events), next(events))}
    assert told["egress.rules"].message == "offline; 1 connections were cut"
    cut = told["egress.cut"].decision
    assert cut is not None
    assert (cut.name, cut.port) == ("www.example.com", 7)


def address_of(watched: Watched, name: str) -> str:
    """Return the address that stands for a name in the guest."""
    return watched.net.python("import socket, sys; print(socket.gethostbyname(sys.argv[1]))", name).strip()


def test_the_log_is_followed(watched: Watched) -> None:
    """What was before, once, then what comes at once; a server that ends under it is told with what to do."""
    watched.fetch("http://one.example.net/")
    with watched.cli("egress", "log", "dev", "-f") as follow, watched.cli("egress", "log", "dev", "-f") as stopped:
        for process in (follow, stopped):
            assert process.stdout is not None
            assert "refused  one.example.net:80  no rule allows it" in process.stdout.readline()
        watched.fetch("http://two.example.net/", "http://three.example.net/")
        assert follow.stdout is not None
        assert "two.example.net" in follow.stdout.readline()
        assert "three.example.net" in follow.stdout.readline()
        stopped.send_signal(signal.SIGINT)
        assert stopped.wait(60) == 130
        watched.server.process.send_signal(signal.SIGTERM)
        watched.server.process.wait(60)
        assert follow.wait(60) == 1
        assert follow.stderr is not None
        assert "went away" in follow.stderr.read()


def test_the_log_of_a_shed_ends_with_it(watched: Watched) -> None:
    """As that of its console does; only so many entries are shown before."""
    watched.fetch(*(f"http://{number}.example.net/" for number in ("one", "two", "three")))
    with watched.cli("egress", "log", "dev", "-f", "-n", "2", "--json") as follow:
        assert follow.stdout is not None
        shown = [json.loads(follow.stdout.readline())["name"] for _ in range(2)]
        assert shown == ["two.example.net", "three.example.net"]
        watched.client.get("dev").delete()
        assert follow.wait(60) == 0


def test_what_a_command_needs_is_learned(watched: Watched) -> None:
    """Names and ports, refused ones included: as a file, as a diff, and kept when that is wanted."""
    urls = [f"http://{letter}.example.org/hello" for letter in "abc"] + ["http://www.example.com/hello"]
    resolv = watched.net.folder / "resolv.conf"
    words = f'mount --bind {resolv} /etc/resolv.conf && "$@"; exit 3'
    inside = ["ip", "netns", "exec", watched.net.guest, "sh", "-c", words, "sh", sys.executable, "-c", FETCH, *urls]
    watched.fetch()  # writes that file
    with watched.cli("egress", "learn", "dev", "--", *inside) as learn:
        out, said = learn.communicate(timeout=120)
    assert learn.returncode == 3, said
    assert said.split()[:4] == ["403", "403", "403", "200"]
    learned = yaml.safe_load(out)
    assert all(rule["ports"] == [80] for rule in learned["rules"])
    policy = Policy.of([Profile.parse("learned", learned)])
    assert all(policy.about_name(name, 80).allowed for name in ("a.example.org", "b.example.org", "www.example.com"))
    with watched.cli("egress", "learn", "--profile", "mine", "--save", "dev", "--", *inside) as learn:
        out, _ = learn.communicate(timeout=120)
    added = [line for line in out.splitlines() if line.startswith("+  - ")]
    assert added
    assert "www.example.com" not in "".join(added)
    assert watched.fetch(urls[0]) == ["200"]  # the shed has that profile


def test_a_time_is_learned_from_until_it_is_interrupted(watched: Watched) -> None:
    """Whoever connects meanwhile; ctrl-C ends the time, not the command."""
    with watched.cli("egress", "learn", "dev", "--json") as learn:
        assert learn.stderr is not None
        assert learn.stderr.readline() == "watching dev; ctrl-C ends it\n"
        watched.fetch("http://a.example.org/hello")
        learn.send_signal(signal.SIGINT)
        out, _ = learn.communicate(timeout=60)
    assert learn.returncode == 0
    assert json.loads(out)["rules"] == [{"allow": "a.example.org", "ports": [80]}]


async def test_a_follower_is_no_trouble_when_the_relay_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """What serves it is cancelled then, and its thread ends without a word."""
    said: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", said.append)
    serving = asyncio.Event()

    class Followed(netd.Netd):
        def __init__(self) -> None:
            self.clients, self._lock = 0, threading.Lock()
            self.watchers = self  # type: ignore[assignment]

        async def serve(self, _: socket.socket) -> None:
            serving.set()
            await asyncio.Event().wait()

    client, theirs = socket.socketpair()
    with client:
        wire.send(client, {"do": "watch"})
        thread = threading.Thread(target=netd._talk, args=(theirs, Followed(), asyncio.get_running_loop()))
        thread.start()
        await serving.wait()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.to_thread(thread.join)
    assert said == []
