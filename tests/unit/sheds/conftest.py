from collections.abc import Iterator
from pathlib import Path

import pytest

from support.servers.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A server's world; no VM of it is left behind."""
    world = World(tmp_path).prepare()
    yield world
    world.kill_machines()
