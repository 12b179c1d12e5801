from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.config.paths import Paths
from shed.server.doctor.host import Host
from shed.sheds import folders
from support.servers.running import Running
from support.servers.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A server's world; no VM of it is left behind."""
    world = World(tmp_path)
    yield world
    world.kill_machines()


@pytest.fixture(scope="session")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server without sheds, shared by tests that change nothing."""
    running = Running(World(tmp_path_factory.mktemp("quiet")))
    yield running
    running.end()


@pytest.fixture
def server(world: World) -> Iterator[Running]:
    """A server that runs."""
    running = Running(world)
    yield running
    running.end()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host with its folders and nothing in them, without units of this machine's."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("SHED_ACCEL", "tcg")
    paths = Paths(tmp_path / "data", tmp_path / "run")
    folders.prepare(paths)
    return Host(paths)
