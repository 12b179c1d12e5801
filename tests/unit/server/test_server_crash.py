"""A server that is killed, at any point: nothing is lost that was there, nothing stays that was not finished."""

import contextlib
import json
import signal
import threading
from pathlib import Path

import pytest

from support.servers.running import Running
from support.servers.world import World
from support.waiting import wait_until

PHASES = ["image", "reserve", "upper", "metadata", "vm", "agent", "configure", "commit"]


def asynchronously(server: Running, method: str, target: str, body: str | None = None) -> threading.Thread:
    """Send a request that will not be answered."""

    def send() -> None:
        with contextlib.suppress(ConnectionError):
            server.request(method, target, body)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize("phase", PHASES)
def test_a_create_cut_in_any_phase_is_undone_by_the_next_server(world: World, phase: str) -> None:
    """SIGKILL in the phase; the next server removes the rest, VM and all, and the same create works."""
    server = Running(world, phase)
    thread = asynchronously(server, "POST", "/api/sheds", '{"name": "dev"}')
    server.stand_still()
    assert server.end(signal.SIGKILL) == -signal.SIGKILL
    thread.join()
    assert bool(world.traces()) == (phase not in {"image", "reserve"})
    assert len(world.machines()) == (phase in {"agent", "configure", "commit"})

    server = Running(world)
    assert server.request("GET", "/api/sheds/dev")[0] == 404
    assert json.loads(server.request("GET", "/api/sheds")[1]) == {"sheds": [], "warnings": []}
    wait_until(lambda: not world.traces() and not world.machines())
    assert server.request("POST", "/api/sheds", '{"name": "dev"}')[0] == 201
    assert server.request("DELETE", "/api/sheds/dev?force=true")[0] == 200
    assert server.end() == 0


def test_a_create_right_after_the_crash_does_not_wait_for_the_sweep(world: World) -> None:
    """Create sweeps its own name."""
    server = Running(world, "configure")
    thread = asynchronously(server, "POST", "/api/sheds", '{"name": "dev"}')
    server.stand_still()
    server.end(signal.SIGKILL)
    thread.join()
    server = Running(world)
    assert server.request("POST", "/api/sheds", '{"name": "dev"}')[0] == 201
    assert len(world.machines()) == 1
    server.end()


@pytest.mark.parametrize("phase", ["vm", "agent", "configure"])
def test_a_start_cut_in_any_phase_leaves_a_shed_that_works(world: World, phase: str) -> None:
    """The shed, and its files, are there; whatever was running is used or replaced."""
    server = Running(world)
    server.request("POST", "/api/sheds", '{"name": "dev"}')
    server.request("POST", "/api/sheds/dev/stop")
    server.end()
    server = Running(world, phase)
    thread = asynchronously(server, "POST", "/api/sheds/dev/start")
    server.stand_still()
    server.end(signal.SIGKILL)
    thread.join()
    server = Running(world)
    client, reader = server.upgrade("POST", "/api/sheds/dev/exec", "shed-exec")
    client.close()
    reader.close()
    assert len(world.machines()) == 1
    server.end()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_sheds_outlive_their_server(world: World, number: int) -> None:
    """The next server finds the same VM."""
    server = Running(world)
    shed = json.loads(server.request("POST", "/api/sheds", '{"name": "dev"}')[1])
    assert server.end(number) == (-number if number == signal.SIGKILL else 0)
    server = Running(world)
    assert json.loads(server.request("GET", "/api/sheds/dev")[1])["pid"] == shed["pid"]
    client, reader = server.upgrade("POST", "/api/sheds/dev/exec", "shed-exec")
    client.close()
    reader.close()
    server.end()


def test_a_server_that_is_told_to_stop_undoes_the_create_under_way(world: World, tmp_path: Path) -> None:
    """The client is told, nothing is left, and the server ends at once."""
    world.prepare()
    (tmp_path / "faults").write_text("mute")
    server = Running(world)
    answers: list[tuple[int, bytes]] = []
    thread = threading.Thread(target=lambda: answers.append(server.request("POST", "/api/sheds", '{"name": "dev"}')))
    thread.start()
    wait_until(lambda: len(world.machines()) == 1)
    assert server.request("POST", "/api/server/stop")[0] == 200
    thread.join()
    assert server.ended() == 0
    assert answers[0][0] == 503
    assert json.loads(answers[0][1])["error"]["code"] == "SERVER_STOPPING"
    assert world.traces() == set()
    assert world.machines() == []
