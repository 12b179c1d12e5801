"""A start that waits for its guest does not hold up who wants the shed stopped, or gone."""

import asyncio
import threading
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from shed.api.making import CreateShed
from shed.errors import ConflictError, ShedError
from shed.progress import PhaseEvent, Progress, Stop
from shed.sheds.manager import Manager
from support.servers.world import World, create
from support.waiting import until

PATIENCE = 600.0
"""Seconds that the guest would be given: no test waits for that."""


async def under_way(world: World, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Begin `work` and return when its VM runs, which will never answer."""
    before = len(world.backend.started)
    task = asyncio.create_task(work)
    await until(lambda: len(world.backend.started) > before and world.machines())
    return task


async def ended(task: asyncio.Task[Any], reason: str) -> None:
    """Check that who waits for `task` is told `reason`, and that the task itself can go on."""
    with pytest.raises(ConflictError, match=reason) as caught:
        await task
    assert caught.value.code == "SHED_START_ENDED"
    assert task.cancelling() == 0


async def deleted(manager: Manager, name: str) -> None:
    """Delete with force, in far less time than the guest is given."""
    async with asyncio.timeout(PATIENCE / 10):
        await manager.delete(name, force=True, progress=Progress())


async def test_a_forced_delete_ends_the_create(world: World) -> None:
    """Nothing is left, no VM runs, and the name is free again."""
    async with world.manager() as manager:
        world.backend.faults = {"mute"}
        task = await under_way(world, create(manager, "dev", timeout=PATIENCE))
        assert manager.catalog.get("dev")["status"] == "starting"
        await deleted(manager, "dev")
        await ended(task, "'dev' was ended: it is being deleted")
        assert (world.traces(), world.machines()) == (set(), [])
        world.backend.faults = set()
        assert (await create(manager, "dev"))["status"] == "running"


async def test_a_forced_delete_ends_a_pull(world: World) -> None:
    """The create has not taken its name yet; the transfer is told to stop, and the delete finds nothing to remove."""
    pulling = threading.Event()

    def ensure(name: str, progress: Progress, stop: Stop) -> str:
        pulling.set()
        stop.sleep(PATIENCE)
        raise AssertionError

    manager = Manager(world.paths, world.backend, world.resolve, world.settings, ensure=ensure)
    await manager.open()
    task = asyncio.create_task(create(manager, "dev"))
    await until(pulling.is_set)
    await deleted(manager, "dev")
    await ended(task, "it is being deleted")
    with pytest.raises(ShedError) as caught:
        await deleted(manager, "dev")
    assert caught.value.code == "SHED_NOT_FOUND"
    await manager.close()


async def test_a_forced_delete_ends_the_start_and_all_that_wait_for_it(world: World) -> None:
    """A second start and a command queue behind the first one: all are told, none starts the shed again."""
    world.with_settings(start_timeout=PATIENCE)
    async with world.manager() as manager:
        await create(manager, "dev")
        await manager.stop("dev", Progress())
        world.backend.faults = {"mute"}
        task = await under_way(world, manager.start("dev", Progress()))
        waiting = [
            asyncio.create_task(work) for work in (manager.start("dev", Progress()), manager.guests.open_exec("dev"))
        ]
        await until(lambda: len(manager._names["dev"].starts._tasks) == 3)
        said: list[object] = []
        await manager.delete("dev", force=True, progress=Progress(said.append))
        assert said[0] == PhaseEvent("interrupt", "ending its start")
        for each in (task, *waiting):
            await ended(each, "it is being deleted")
        assert len(world.backend.started) == 2
        assert (world.traces(), world.machines()) == (set(), [])


async def test_a_stop_ends_the_start(world: World) -> None:
    """The shed is stopped, as it was before, and starts when it is asked to."""
    world.with_settings(start_timeout=PATIENCE)
    async with world.manager() as manager:
        await create(manager, "dev")
        await manager.stop("dev", Progress())
        world.backend.faults = {"mute"}
        task = await under_way(world, manager.guests.open_exec("dev"))
        async with asyncio.timeout(PATIENCE / 10):
            assert (await manager.stop("dev", Progress()))["status"] == "stopped"
        await ended(task, "the start of shed 'dev' was ended: it is being stopped")
        assert world.machines() == []
        world.backend.faults = set()
        assert (await manager.start("dev", Progress()))["status"] == "running"


async def test_a_stop_does_not_undo_a_create(world: World) -> None:
    """It is refused at once, and says what would."""
    async with world.manager() as manager:
        world.backend.faults = {"mute"}
        task = await under_way(world, create(manager, "dev", timeout=PATIENCE))
        with pytest.raises(ConflictError, match="being created") as caught:
            await manager.stop("dev", Progress())
        assert "delete --force dev" in (caught.value.hint or "")
        await deleted(manager, "dev")
        await ended(task, "it is being deleted")


async def test_a_second_delete_does_not_cut_the_undo_short(world: World) -> None:
    """Impatience leaves nothing behind: one deletes, the other finds that it is gone, or both."""
    async with world.manager() as manager:
        world.backend.faults = {"mute"}
        task = await under_way(world, create(manager, "dev", timeout=PATIENCE))
        await asyncio.gather(*(deleted(manager, "dev") for _ in range(3)))
        await ended(task, "it is being deleted")
        assert (world.traces(), world.machines()) == (set(), [])


async def test_a_server_that_ends_is_not_taken_for_a_delete(world: World) -> None:
    """Both at once: the task is cancelled, as the server's end wants it."""
    async with world.manager() as manager:
        world.backend.faults = {"mute"}
        task = await under_way(world, manager.create(CreateShed(name="dev", timeout=PATIENCE), Progress()))
        began = time.monotonic()
        deleting = asyncio.create_task(deleted(manager, "dev"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await deleting
        assert time.monotonic() - began < PATIENCE / 10
