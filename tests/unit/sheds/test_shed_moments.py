"""What a running shed is at one moment is kept, and others go on from it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from shed.api.making import CreateShed
from shed.errors import BackendError, ConflictError, NotFoundError, StorageError, UnavailableError, UsageError
from shed.progress import Progress, WarningEvent
from shed.sheds import metadata
from shed.sheds.agent import control
from shed.sheds.manager import Manager
from support.servers.killed import killed_at
from support.servers.world import GIB, World, create


async def kept(manager: Manager, name: str = "now", **options: bool) -> None:
    """Make the shed ``dev``, which runs, and a snapshot of it."""
    await create(manager, "dev", upper_size_bytes=GIB)
    await manager.snapshots.create("dev", name, "", Progress(), **options)


def said(world: World, name: str) -> str:
    """Return what the VM of a shed was told."""
    return (world.instance(name) / "console.log").read_text()


async def test_a_shed_goes_on_from_a_snapshot(world: World) -> None:
    """It has the shape of the source, and is told who it is; the source has gone on, and what is kept stays."""
    async with world.manager() as manager:
        await kept(manager)
        assert said(world, "dev").endswith("thaw\n")
        assert manager.snapshots.view(manager.snapshots.store.load("now"))["memory_mb"] == 2048
        memory = world.paths.snapshots / "now/memory/memory"
        assert memory.read_text() == "dev"
        for name in ("one", "two"):
            made = await create(manager, name, from_snapshot="now")
            assert (made["status"], made["cpus"], made["memory_mb"]) == ("running", 2, 2048)
            assert "fork" in made["timings"]
            (told,) = [json.loads(line) for line in said(world, name).splitlines() if '"fork"' in line]
            assert (told["name"], told["hostname"], told["mounts"]) == (name, name, [])
            assert len(told["entropy"]) > 80
        assert memory.read_text() == "dev"
        booted = await create(manager, "three", from_snapshot="now", disk_only=True)
        assert "configure" in booted["timings"]


async def test_a_disk_alone(world: World) -> None:
    """The shed stands still for it, too; who is made of it boots."""
    async with world.manager() as manager:
        await kept(manager, disk_only=True)
        assert said(world, "dev").endswith("thaw\n")
        assert not (world.paths.snapshots / "now/memory").exists()
        assert "configure" in (await create(manager, "one", from_snapshot="now"))["timings"]


@pytest.mark.parametrize(
    "other", [{"cpus": 3}, {"memory_mb": 512}, {"upper_size_bytes": 2 * GIB}, {"local_dir": "/tmp"}]
)
async def test_what_cannot_be_had_with_memory(world: World, other: dict[str, object]) -> None:
    """It is refused with the way out, and nothing is made."""
    async with world.manager() as manager:
        await kept(manager)
        with pytest.raises(UsageError, match="cannot have another --") as caught:
            await create(manager, "one", from_snapshot="now", **other)
        assert "--no-memory" in caught.value.next_step
        assert world.traces() == {"instances/dev", "uppers/dev"}


async def test_a_shared_folder_is_not_kept_with_memory(world: World, tmp_path: Path) -> None:
    """That is said before the shed stands still; its disk can be kept."""
    (tmp_path / "folder").mkdir()
    async with world.manager() as manager:
        await create(manager, "dev", upper_size_bytes=GIB)
        shared = replace(manager.catalog.record("dev"), local_dir=str(tmp_path / "folder"))
        metadata.save(world.instance("dev"), shared)
        with pytest.raises(ConflictError) as caught:
            await manager.snapshots.create("dev", "now", "", Progress())
        assert caught.value.code == "SNAPSHOT_SOURCE_RUNNING"
        assert "--no-memory" in caught.value.next_step
        with pytest.raises(ConflictError) as caught:
            await manager.forks.fork("dev", ["two"], Progress())
        assert caught.value.next_step.startswith("fork its files alone: `shed snapshot create dev --no-memory`, ")
        assert "thaw" not in said(world, "dev")
        await manager.snapshots.create("dev", "now", "", Progress(), disk_only=True)
        assert manager.snapshots.store.names() == ["now"]


async def test_a_guest_that_does_not_stand_still_is_not_kept(world: World) -> None:
    """It is told to go on, and no snapshot is left."""
    world.backend.faults.add("restless")
    async with world.manager() as manager:
        with pytest.raises(BackendError) as caught:
            await kept(manager)
        assert caught.value.code == "NOT_FROZEN"
        assert said(world, "dev").endswith("thaw\n")
        assert list(world.paths.snapshots.iterdir()) == []


async def test_a_snapshot_without_room_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the shed stands still."""
    async with world.manager() as manager:
        await create(manager, "dev", upper_size_bytes=GIB)
        free = shutil.disk_usage(world.paths.data)._replace(free=1 << 20)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
        with pytest.raises(StorageError, match="no space for the snapshot"):
            await manager.snapshots.create("dev", "now", "", Progress())
        assert "thaw" not in said(world, "dev")
        assert list(world.paths.snapshots.iterdir()) == []


async def test_a_guest_that_does_not_say_who_it_is_does_not_run(world: World) -> None:
    """Nothing is left of it, and the snapshot is as it was."""
    async with world.manager() as manager:
        await kept(manager)
        world.backend.faults.add("lost")
        with pytest.raises(BackendError, match="does not stand still"):
            await create(manager, "one", from_snapshot="now")
        assert world.traces() == {"instances/dev", "uppers/dev"}
        assert len(world.machines()) == 1
        world.backend.faults.remove("lost")
        await create(manager, "one", from_snapshot="now")


async def test_memory_that_cannot_be_used(world: World) -> None:
    """Nothing boots in its place without being asked to."""
    async with world.manager() as manager:
        await kept(manager)
        (world.paths.snapshots / "now/memory/memory").unlink()
        with pytest.raises(UnavailableError) as caught:
            await create(manager, "one", from_snapshot="now")
        assert caught.value.code == "MEMORY_UNUSABLE"
        assert world.traces() == {"instances/dev", "uppers/dev"}
        await create(manager, "one", from_snapshot="now", disk_only=True)


async def test_hooks_that_fail_are_told(world: World) -> None:
    """As warnings; the shed is made."""
    world.backend.faults.add("hooks")
    async with world.manager() as manager:
        await kept(manager)
        events: list[object] = []
        origin = manager.snapshots.origin("now", None)
        assert origin is not None
        await manager.create(CreateShed(name="one"), Progress(events.append), origin)
        assert [str(event.message) for event in events if isinstance(event, WarningEvent)] == [
            "/etc/shed/forked.d: 10-late failed with status 1"
        ]


async def test_forks(world: World) -> None:
    """Each is whole or not there, and nothing is left of what they went on from."""
    async with world.manager() as manager:
        await create(manager, "dev", upper_size_bytes=GIB, egress=["offline"])
        found = await manager.forks.fork("dev", ["one", "two"], Progress())
        assert [(each.name, each.error) for each in found] == [("one", None), ("two", None)]
        assert [manager.catalog.get(name)["egress"] for name in ("one", "two")] == [["offline"]] * 2
        assert list(world.paths.snapshots.iterdir()) == []
        with pytest.raises(ConflictError) as caught:
            await manager.forks.fork("dev", ["three", "two"], Progress())
        assert caught.value.code == "SHED_ALREADY_EXISTS"
        world.backend.faults.add("lost")
        (failed,) = await manager.forks.fork("dev", ["three"], Progress())
        assert failed.shed is None
        assert failed.error is not None
        assert "three" not in str(world.traces())
        await manager.stop("dev", Progress())
        with pytest.raises(UnavailableError) as refused:
            await manager.forks.fork("dev", ["three"], Progress())
        assert refused.value.code == "SHED_NOT_RUNNING"
        assert list(world.paths.snapshots.iterdir()) == []


def test_a_server_that_is_killed_leaves_all_or_nothing(world: World) -> None:
    """At each step of keeping a running shed, and of going on from it: the next one has it run on, and no halves."""
    world.with_settings(warm_start=False)

    async def begin() -> None:
        async with world.manager() as manager:
            await create(manager, "dev", upper_size_bytes=GIB)

    async def make(manager: Manager) -> None:
        await manager.snapshots.create("dev", "now", "", Progress())

    async def go_on(manager: Manager) -> None:
        await create(manager, "one", from_snapshot="now")

    async def look() -> tuple[bool, bool]:
        async with world.manager() as manager:
            link = await manager.link("dev", None, autostart=False)
            assert (await control(await link.get(), "health", wait=10))["state"] == "ready"
            names = manager.snapshots.store.names()
            assert sorted(path.name for path in world.paths.snapshots.glob("*")) == names
            if "instances/one" in world.traces():
                with contextlib.suppress(NotFoundError):  # what is left of it is removed, by whoever asks first
                    await manager.link("one", None, autostart=False)
            return bool(names), "instances/one" in world.traces()

    asyncio.run(begin())
    for work, begins, ends in ((make, (False, False), (True, False)), (go_on, (True, False), (True, True))):
        seen = []
        for step in range(1, 200):
            done = killed_at(step, world, work, warm=False)
            seen.append(asyncio.run(look()))
            if done or seen[-1] == ends:
                break
        assert seen[-1] == ends
        assert begins in seen


@pytest.mark.parametrize("stops", [False, True], ids=["runs", "stopped"])
async def test_a_shed_goes_back_with_its_memory(world: World, stops: bool) -> None:
    """Whether it runs or not, and under its own name; what it was is kept, and it goes back to that, too."""
    async with world.manager() as manager:
        await kept(manager)
        upper = world.paths.uppers / "dev/upper.ext4"
        before = upper.read_bytes()[:8]
        if stops:
            await manager.stop("dev", Progress())
        with upper.open("r+b") as file:
            file.write(b"later")
        record, way = await manager.snapshots.rollback("dev", "now", discard=False, progress=Progress())
        assert (record.name, record.wanted, way) == ("dev", "running", "warm")
        assert upper.read_bytes()[:8] == before
        (told,) = [json.loads(line) for line in said(world, "dev").splitlines() if '"fork"' in line]
        assert told["name"] == "dev"
        assert manager.catalog.get("dev")["status"] == "running"
        was = manager.snapshots.store.load("dev-1")
        assert (was.memory is None, was.comment) == (stops, "before the rollback to now")
        assert manager.snapshots.store.upper("dev-1").read_bytes()[:5] == b"later"
        if not stops:
            await manager.snapshots.rollback("dev", "dev-1", discard=True, progress=Progress())
            assert upper.read_bytes()[:5] == b"later"
        assert len(world.machines()) == 1


async def test_memory_that_cannot_be_gone_back_to(world: World) -> None:
    """That is found before anything is touched; the disk alone can be, of a stopped shed."""
    async with world.manager() as manager:
        await kept(manager)
        (world.paths.snapshots / "now/memory/memory").unlink()
        with pytest.raises(UnavailableError) as caught:
            await manager.snapshots.rollback("dev", "now", discard=False, progress=Progress())
        assert (caught.value.code, "--no-memory" in caught.value.next_step) == ("MEMORY_UNUSABLE", True)
        assert manager.catalog.get("dev")["status"] == "running"
        with pytest.raises(ConflictError):
            await manager.snapshots.rollback("dev", "now", discard=True, disk_only=True, progress=Progress())
        await manager.stop("dev", Progress())
        _, way = await manager.snapshots.rollback("dev", "now", discard=True, disk_only=True, progress=Progress())
        assert (way, manager.catalog.get("dev")["status"]) == ("", "stopped")
        assert manager.snapshots.store.names() == ["now"]


async def test_a_larger_disk_does_not_go_back_with_memory(world: World) -> None:
    """The memory knows the disk that it was kept with."""
    async with world.manager() as manager:
        await kept(manager)
        await manager.stop("dev", Progress())
        metadata.save(world.instance("dev"), replace(manager.catalog.record("dev"), upper_size_bytes=2 * GIB))
        with pytest.raises(UnavailableError, match="another disk"):
            await manager.snapshots.rollback("dev", "now", discard=True, progress=Progress())
