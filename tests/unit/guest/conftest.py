from collections.abc import Iterator
from pathlib import Path

import pytest

from support.guests.agent import Agent, Host


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """An agent that is ready; its commands run as whoever runs the tests, in `tmp_path`/work."""
    (tmp_path / "work").mkdir()
    agent = Agent(tmp_path, {"folders": [str(tmp_path / "work")], "env": {"FROM_IMAGE": "yes"}})
    yield agent
    agent.close()
    assert "failed" not in agent.console(), agent.console()


@pytest.fixture
def host(agent: Agent) -> Iterator[Host]:
    """A host attached to the agent."""
    with agent.host() as host:
        yield host
