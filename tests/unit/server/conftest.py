from collections.abc import Iterator
from pathlib import Path

import pytest

from support.running import Running
from support.world import World


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
