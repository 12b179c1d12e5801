"""Sheds are suspended, and go on: once, from memory that is complete, and never with another disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path

import pytest

from shed.api.making import UpdateShed
from shed.api.ports import ChangePorts
from shed.errors import BackendError, ShedError, StorageError
from shed.progress import Progress, WarningEvent
from shed.sheds import asleep, folders, metadata
from shed.sheds.manager import Manager
from support.servers.killed import killed_at
from support.servers.world import GIB, World, create
from support.waiting import until


async def suspended(manager: Manager, **options: object) -> None:
    """Make the shed ``dev``, and suspend it."""
    await create(manager, "dev", upper_size_bytes=GIB, **options)
    await manager.suspensions.suspend("dev", Progress())


def status(manager: Manager) -> str:
    """Return the status of the shed."""
    return str(manager.catalog.get("dev")["status"])


def said(world: World) -> str:
    """Return what the VM of the shed was told since it came up."""
    return (world.instance("dev") / "console.log").read_text()


def kept(world: World) -> list[str]:
    """Return what there is of the shed's memory."""
    return sorted(path.name for path in world.instance("dev").iterdir() if "memory" in path.name)


async def refused(code: str, work: Awaitable[object]) -> str:
    """Have work be refused; return what to do about it."""
    with pytest.raises(ShedError) as caught:
        await work
    assert caught.value.code == code
    return caught.value.next_step


async def test_a_shed_is_suspended_and_goes_on(world: World) -> None:
    """It has no VM meanwhile; it is told who it is, the clock and fresh randomness; its memory is gone then."""
    async with world.manager() as manager:
        await suspended(manager)
        view = manager.catalog.get("dev")
        assert (view["status"], "pid" in view, "detail" in view) == ("suspended", False, False)
        assert view["suspended_at"] <= metadata.now()
        assert (world.machines(), kept(world)) == ([], ["memory"])
        await refused("SHED_SUSPENDED", manager.suspensions.suspend("dev", Progress()))
        record, way = await manager.suspensions.resume("dev", Progress(), force=False)
        assert (record.name, way, status(manager), kept(world)) == ("dev", "resumed", "running", [])
        (told,) = [json.loads(line) for line in said(world).splitlines() if '"wake"' in line]
        assert (told["name"], len(told["entropy"]) > 80, told["clock"] > 1e9) == ("dev", True, True)
        assert '"configure"' not in said(world)
        await refused("SHED_NOT_SUSPENDED", manager.suspensions.resume("dev", Progress(), force=False))
        kinds = [event.kind for event in manager.events.recent(lambda _: True)]
        assert kinds == ["shed.created", "shed.suspended", "shed.resumed"]
        await manager.stop("dev", Progress())
        assert "start" in await refused("SHED_ALREADY_STOPPED", manager.suspensions.suspend("dev", Progress()))
        assert "start" in await refused(
            "SHED_NOT_SUSPENDED", manager.suspensions.resume("dev", Progress(), force=False)
        )


async def test_a_command_wakes_it_and_a_look_does_not(world: World) -> None:
    """Also in the server after the one that suspended it."""
    async with world.manager() as manager:
        await suspended(manager)
    async with world.manager() as manager:
        assert status(manager) == "suspended"
        await refused("SHED_NOT_RUNNING", manager.guests.open_exec("dev", autostart=False))
        assert status(manager) == "suspended"
        (await manager.guests.open_exec("dev")).close()
        assert status(manager) == "running"


async def test_a_connection_wakes_it(world: World) -> None:
    """To a port of the shed, and to one of the host that leads there; later servers serve that, too."""
    async with world.manager() as manager:
        await suspended(manager, ports=["7"])
        (await manager.guests.open_port("dev", 7)).close()
        assert status(manager) == "running"
        await manager.suspensions.suspend("dev", Progress())
        await manager.changes.set_ports("dev", ChangePorts(publish=["0:10"]))
        assert await echoed(manager) == b"hello"
        assert status(manager) == "running"
        await manager.suspensions.suspend("dev", Progress())
    async with world.manager() as manager:
        await until(lambda: [one.open for one in manager.ports.shown(manager.catalog.record("dev"))] == [True, True])
        assert await echoed(manager) == b"hello"
        await manager.suspensions.suspend("dev", Progress())
        await manager.stop("dev", Progress())
        assert [one.open for one in manager.ports.shown(manager.catalog.record("dev"))] == [False, False]


async def echoed(manager: Manager) -> bytes:
    """Return what comes back through the published port."""
    port = manager.catalog.record("dev").published[0].port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.closing(writer):
        writer.write(b"hello")
        return await reader.readexactly(5)


async def test_a_stop_drops_the_memory_and_says_so(world: World) -> None:
    """So does a start that is asked to; the next start boots."""
    async with world.manager() as manager:
        await suspended(manager)
        events: list[object] = []
        await manager.stop("dev", Progress(events.append))
        (warning,) = [event.message for event in events if isinstance(event, WarningEvent)]
        assert "what ran there is gone" in warning
        assert (status(manager), kept(world)) == ("stopped", [])
        await manager.start("dev", Progress())
        assert '"configure"' in said(world)
        await manager.suspensions.suspend("dev", Progress())
        assert (await manager.start("dev", Progress(), disk_only=True))["boot"] == "cold"
        assert ('"configure"' in said(world), kept(world)) == (True, [])


async def test_memory_that_cannot_be_used(world: World) -> None:
    """A disk that was written to, or a record that is damaged: it stays suspended, and the way out is named."""
    async with world.manager() as manager:
        await suspended(manager)
        os.utime(world.paths.uppers / "dev/upper.ext4")
        step = await refused("MEMORY_UNUSABLE", manager.start("dev", Progress()))
        assert "shed start --no-memory dev" in step
        assert (status(manager), kept(world), world.machines()) == ("suspended", ["memory"], [])
        (world.instance("dev") / "memory/shed.json").unlink()
        assert "--no-memory" in await refused("SHED_DAMAGED", manager.start("dev", Progress()))
        assert "--no-memory" in manager.catalog.get("dev")["detail"]
        await manager.start("dev", Progress(), disk_only=True)
        assert (status(manager), kept(world)) == ("running", [])


@pytest.mark.parametrize("fault", ["restless", "not-saved"])
async def test_a_shed_that_cannot_be_suspended_runs_on(world: World, fault: str) -> None:
    """Its guest is told to go on, and nothing is left."""
    async with world.manager() as manager:
        await create(manager, "dev")
        await manager.stop("dev", Progress())
        world.backend.faults.add(fault)
        await manager.start("dev", Progress())
        with pytest.raises(BackendError):
            await manager.suspensions.suspend("dev", Progress())
        assert "thaw\n" in said(world)
        assert (status(manager), kept(world)) == ("running", [])
        world.backend.faults.remove(fault)
        (await manager.guests.open_exec("dev")).close()


async def test_what_does_not_fit_is_refused_before(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A full disk, and a folder of the host."""
    async with world.manager() as manager:
        await create(manager, "dev")
        free = shutil.disk_usage(world.paths.data)._replace(free=1 << 20)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda _: free)
            with pytest.raises(StorageError, match="no space for the memory"):
                await manager.suspensions.suspend("dev", Progress())
        metadata.save(world.instance("dev"), replace(manager.catalog.record("dev"), local_dir=str(tmp_path)))
        assert "shed stop dev" in await refused("CANNOT_SUSPEND", manager.suspensions.suspend("dev", Progress()))
        assert "thaw" not in said(world)
        assert kept(world) == []


async def test_a_start_that_fails_leaves_it_suspended(world: World) -> None:
    """As long as its VM has not run; from then on the memory is of no use, and it is stopped."""
    async with world.manager() as manager:
        await suspended(manager)
        world.backend.faults.add("no-start")
        with pytest.raises(BackendError) as caught:
            await manager.start("dev", Progress())
        assert "--no-memory" in caught.value.next_step
        assert (status(manager), kept(world)) == ("suspended", ["memory"])
        world.backend.faults.remove("no-start")
        world.backend.faults.add("lost")
        with pytest.raises(BackendError) as caught:
            await manager.start("dev", Progress())
        assert "what ran there is gone" in caught.value.next_step
        assert (status(manager), world.machines()) == ("stopped", [])
        await manager.start("dev", Progress())
        assert ('"configure"' in said(world), kept(world)) == (True, [])


async def test_who_gives_up_does_not_cut_it_short(world: World) -> None:
    """What has begun to go on has nothing to go back to: a client that leaves finds it running."""
    async with world.manager() as manager:
        await suspended(manager)
        task = asyncio.create_task(manager.start("dev", Progress()))
        await until(lambda: manager.catalog.get("dev")["status"] == "starting")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert (status(manager), kept(world)) == ("running", [])
        assert '"wake"' in said(world)


async def test_what_else_is_done_with_a_suspended_shed(world: World) -> None:
    """It is right, or refused with the next step."""
    async with world.manager() as manager:
        await suspended(manager)
        await manager.update("dev", UpdateShed(ttl=3600, memory_mb=512), Progress())
        assert "resume" in await refused(
            "SHED_SUSPENDED", manager.update("dev", UpdateShed(upper_size_bytes=2 * GIB), Progress())
        )
        assert "resume" in await refused("SHED_SUSPENDED", manager.rename("dev", "other"))
        snapshots = manager.snapshots
        assert "--no-memory" in await refused("SHED_SUSPENDED", snapshots.create("dev", "now", "", Progress()))
        await snapshots.create("dev", "now", "", Progress(), disk_only=True)
        assert "stop" in await refused(
            "SHED_SUSPENDED", snapshots.rollback("dev", "now", discard=True, progress=Progress())
        )
        assert "stop" in await refused("SHED_SUSPENDED", snapshots.reset("dev", Progress()))
        await refused("SHED_NOT_RUNNING", manager.forks.fork("dev", ["fork"], Progress()))
        assert "--force" in await refused("SHED_SUSPENDED", manager.delete("dev", force=False, progress=Progress()))
        await manager.start("dev", Progress())
        assert world.backend.started[-1].memory_mb == 2048  # the shape that it was started with
        await manager.suspensions.suspend("dev", Progress())
        await manager.delete("dev", force=True, progress=Progress())
        assert world.traces() == set()


async def test_a_restart_policy_does_not_wake_it(world: World) -> None:
    """Nobody has asked for it; a VM that has crashed is another matter."""
    async with world.manager() as manager:
        await suspended(manager, restart="always")
    async with world.manager() as manager:
        await create(manager, "other")
        assert status(manager) == "suspended"


def test_a_server_that_is_killed_leaves_a_whole_shed(world: World) -> None:
    """Wherever it is killed in a suspend and a wake: the shed runs, is suspended, or is stopped once it had gone on.

    Nothing is left over, and nothing goes on twice.
    """

    async def work(manager: Manager) -> None:
        await manager.suspensions.suspend("dev", Progress())
        await manager.suspensions.resume("dev", Progress(), force=False)

    async def look(first: bool = False) -> str:
        async with world.manager() as manager:
            if first:
                await create(manager, "dev")
            await until(lambda: not folders.leftovers(world.paths))
            await until(lambda: not manager._names["dev"].doing if "dev" in manager._names else True)
            found = status(manager)
            await until(lambda: len(world.machines()) == (found == "running"))
            assert asleep.is_asleep(manager.catalog.folders("dev")) == (found == "suspended")
            (await manager.guests.open_exec("dev")).close()
            assert (status(manager), kept(world)) == ("running", [])
            return found

    asyncio.run(look(first=True))
    seen = []
    for step in range(1, 1000):
        done = killed_at(step, world, work, warm=False)
        seen.append(asyncio.run(look()))
        if done:
            break
    assert done
    assert {"running", "suspended"} <= set(seen) <= {"running", "suspended", "stopped"}


async def test_an_agent_that_could_not_wake_it(tmp_path: Path) -> None:
    """A shed that came up before shed was upgraded runs on, and what to do is said."""
    world = World(tmp_path, "old").prepare()
    async with world.manager() as manager:
        await create(manager, "dev", upper_size_bytes=GIB)
        work = manager.suspensions.suspend("dev", Progress())
        assert "shed restart dev" in await refused("CANNOT_SUSPEND", work)
        assert (status(manager), kept(world)) == ("running", [])
        assert said(world).endswith("thaw\n")
        await manager.delete("dev", force=True, progress=Progress())
