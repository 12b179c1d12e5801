"""A server that is killed at each step of a create and a start, and the next one too: what the third finds, and makes
of it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from shed.progress import Progress
from shed.sheds import folders
from shed.sheds.manager import Manager
from support.servers.killed import Work, killed_at
from support.servers.world import World, create
from support.waiting import until

WAYS: dict[str, dict[str, Any]] = {"claimed": {"spares": 1}, "restored": {}}


@pytest.fixture(params=WAYS)
def deaths(request: pytest.FixtureRequest, world: World) -> Callable[[Work], Iterator[bool]]:
    """Have servers do some work, killed one step later each time, and the next ones; yield after both, saying whether
    it was done.
    """

    async def tidy(_manager: Manager) -> None:
        await until(lambda: not folders.leftovers(world.paths))

    def deaths(work: Work) -> Iterator[bool]:
        world.with_settings(warm_start=False)
        for step in itertools.count(1):
            done = killed_at(step, world, work, **WAYS[request.param])
            killed_at(step, world, tidy, warm=False)
            yield done
            if done:
                break

    return deaths


async def opened(world: World, manager: Manager) -> list[str]:
    """Wait until a server that has begun has looked through what is there; return the states of its sheds: none has
    more than it says.
    """
    await until(lambda: not folders.leftovers(world.paths))
    states = [str(shed["status"]) for shed in manager.catalog.list()[0]]
    await until(
        lambda: len(world.machines()) == states.count("running")
    )  # a launcher needs a moment to see that nobody is there
    assert [path.name for path in world.paths.spares.iterdir()] == [".lock"]
    return states


async def lives(manager: Manager) -> None:
    """Run a command in the shed, which is started for it if it is stopped; then stop it."""
    (await manager.guests.open_exec("dev")).close()
    await manager.stop("dev", Progress())


def test_a_create_is_there_or_not(world: World, deaths: Callable[[Work], Iterator[bool]]) -> None:
    """No shed, no folder and no process before the commit; a shed that works from then on."""

    def work(manager: Manager) -> Awaitable[object]:
        return create(manager, "dev")

    async def look() -> bool:
        async with world.manager() as manager:
            there = await opened(world, manager) == ["running"]
            if there:
                await lives(manager)
                await manager.start("dev", Progress())
                await manager.delete("dev", force=True, progress=Progress())
        assert world.traces() == set()
        await until(lambda: not world.machines())
        return there

    seen = [(done, asyncio.run(look())) for done in deaths(work)]
    assert seen[0] == (False, False)
    assert seen[-1] == (True, True)  # in between both may come in turns: threads do not take their steps in one order


def test_a_start_leaves_a_shed_that_can_be_started(world: World, deaths: Callable[[Work], Iterator[bool]]) -> None:
    """Its folders stay; what runs is its own, or nothing; it runs commands, and can be stopped, started and deleted."""

    def work(manager: Manager) -> Awaitable[object]:
        return manager.start("dev", Progress())

    async def look(first: bool = False) -> str:
        async with world.manager() as manager:
            if first:
                await create(manager, "dev")
            (state,) = await opened(world, manager)
            await lives(manager)
        await until(lambda: not world.machines())
        return state

    asyncio.run(look(first=True))
    before = world.traces()
    seen = []
    for done in deaths(work):
        seen.append((done, asyncio.run(look()) == "running"))
        assert world.traces() == before
    assert seen[-1] == (True, True)
