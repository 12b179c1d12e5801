"""Following what happens on a server: by the API, both flavours of the SDK, and the command line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed import AsyncClient, Client, ShedError
from shed.client.address import Address
from shed.client.sync.api import Api
from support.ports import free_port
from support.servers.running import Running
from support.servers.world import World
from support.waiting import wait_until

SHED = [sys.executable, "-m", "shed.cli.main"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    """A server that also listens on TCP."""
    world = World(tmp_path)
    (tmp_path / "port").write_text(str(free_port()))
    running = Running(world)
    yield running
    running.end()
    world.kill_machines()


def url(server: Running) -> str:
    """Return how clients name the server."""
    return f"unix://{server.socket}"


def test_both_flavours_follow(server: Running) -> None:
    """What was before, then what comes; and what the server remembers can be had alone."""
    client = Client(url(server))
    client.create("one")
    following = client.follow_events(shed="two", tail=None)
    seen: list[str] = []
    reader = threading.Thread(target=lambda: seen.extend(next(following).kind for _ in range(2)))
    reader.start()
    two = client.create("two")
    two.stop()
    reader.join(60)
    assert seen == ["shed.created", "shed.stopped"]
    assert [(event.kind, event.shed) for event in client.events(kinds=["shed"])] == [
        ("shed.created", "one"), ("shed.created", "two"), ("shed.stopped", "two"),
    ]  # fmt: skip
    assert [event.shed for event in client.events(tail=1)] == ["two"]

    async def follow() -> list[str]:
        found = []
        async with asyncio.timeout(60):
            async for event in AsyncClient(url(server)).follow_events(tail=3):
                found.append(event.kind)
                if len(found) == 3:
                    await AsyncClient(url(server)).api.delete("two")
                if len(found) == 4:
                    return found
        raise AssertionError

    assert asyncio.run(follow()) == ["shed.created", "shed.created", "shed.stopped", "shed.deleted"]


def test_the_command_line_follows_until_the_server_ends(server: Running) -> None:
    """One JSON object per line; a server that ends is told with the next step, an interrupt is an interrupt."""
    env = {**os.environ, "SHED_SERVER": url(server), "HOME": str(server.world.paths.data.parent)}
    words, pipe = [*SHED, "events", "-f", "--json"], subprocess.PIPE
    Client(url(server)).create("dev")
    with (
        subprocess.Popen(words, env=env, stdout=pipe, stderr=pipe) as stays,
        subprocess.Popen(words, env=env, stdout=pipe, stderr=pipe) as interrupted,
    ):
        for process in (stays, interrupted):
            assert process.stdout is not None
            event = json.loads(process.stdout.readline())
            assert (event["kind"], event["shed"]) == ("shed.created", "dev")
        interrupted.send_signal(signal.SIGINT)
        assert interrupted.wait(60) == 130
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        assert stays.wait(60) == 1
        assert stays.stderr is not None
        assert "went away" in stays.stderr.read().decode()


def test_a_pipe_that_nobody_reads_ends_the_command(server: Running) -> None:
    """Without waiting for another event."""
    env = {**os.environ, "SHED_SERVER": url(server), "HOME": str(server.world.paths.data.parent)}
    with subprocess.Popen([*SHED, "events", "-f"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 141


def test_a_client_that_leaves_is_forgotten(server: Running) -> None:
    """At once, not when the next event comes: the server keeps no connection open for it."""

    def connections() -> int:
        found = 0
        for file in Path(f"/proc/{server.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found += str(file.readlink()).startswith("socket:")
        return found

    Client(url(server)).info()  # its event loop has its own sockets from here on
    following = [Client(url(server)).api.follow_events() for _ in range(5)]
    for each in following:
        next(each)
    held = connections()
    assert held >= 5
    del following, each
    wait_until(lambda: connections() <= held - 5, what="the server has closed their connections")


def test_a_token_to_read_does_not_say_what_sheds_reach(server: Running) -> None:
    """It hears of sheds; naming other kinds is refused, and so is a kind that there is not."""
    mine = Api(url(server))
    port = int((server.world.paths.data.parent / "port").read_text())
    reader = Api(Address(host="127.0.0.1", port=port), token=mine.create_token("watcher", right="read")[1])
    mine.create("dev")
    assert [event["kind"] for event in reader.events()] == ["shed.created"]
    for kinds in (["egress"], ["shed", "egress.refused"]):
        with pytest.raises(ShedError, match="needs the right 'use'"):
            reader.events(kinds=kinds)
    assert mine.events(kinds=["egress"]) == []
    with pytest.raises(ShedError, match="'cats' is not a kind of event"):
        mine.events(kinds=["cats"])
