"""The clocks of sheds: corrected when they are ready, and when ours jumps."""

import os
import re
import signal

import pytest

from shed.sheds import clock
from support.servers.world import World, create
from support.waiting import until


async def test_a_clock_is_corrected_where_it_is_surely_wrong(world: World) -> None:
    """When the shed is ready, by what it is wrong; one that may be right is left alone."""
    async with world.manager() as manager:
        await create(manager, "right")
        world.backend.faults.add("late")
        await create(manager, "late")
        assert set(re.findall("\nclock (.*)", manager.catalog.console_log("right").decode())) == {"0"}
        assert manager.catalog.console_log("late").endswith(b"clock 100\n")


async def test_guests_clocks_are_looked_at_when_ours_jumps(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a night's sleep of the host; who does not answer is asked until it does, or is gone, and holds nobody
    up.
    """
    monkeypatch.setattr(clock, "_LOOK", 0.01)
    monkeypatch.setattr(clock, "_ANSWER_SECONDS", 0.2)
    async with world.manager() as manager:
        for name in ("one", "two"):
            await create(manager, name)
        pid = manager.catalog.get("two")["pid"]
        os.kill(pid, signal.SIGSTOP)
        asked = {name: manager.catalog.console_log(name).count(b"\nclock") for name in ("one", "two")}
        ahead = clock._ahead()
        monkeypatch.setattr(clock, "_ahead", lambda: ahead + 3600)
        await until(lambda: manager.catalog.console_log("one").count(b"\nclock") > asked["one"])
        os.kill(pid, signal.SIGCONT)
        await until(lambda: manager.catalog.console_log("two").count(b"\nclock") > asked["two"])
