"""A shed that is there gets other processors, more memory, a longer disk, or another name."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from shed.api.making import UpdateShed
from shed.errors import BackendError, ConflictError, NotFoundError, ShedError, UsageError
from shed.progress import Event, Progress, WarningEvent
from shed.sheds import folders
from shed.sheds.manager import Manager
from support.servers.killed import killed_at
from support.servers.world import GIB, World, create
from support.waiting import until


class Growing:
    """A backend's disks, which note what they are told."""

    def __init__(self, error: str = "") -> None:
        self.told: list[tuple[str, int, int]] = []
        self._error = error

    async def grow(self, state_dir: Path, disk: int, size: int) -> None:
        """Note it, or fail."""
        if self._error:
            raise BackendError(self._error)
        self.told.append((state_dir.name, disk, size))


def warnings(into: list[str]) -> Progress:
    """Return a progress that keeps its warnings."""

    def sink(event: Event) -> None:
        if isinstance(event, WarningEvent):
            into.append(event.message)

    return Progress(sink)


async def test_a_stopped_shed_is_changed_for_its_next_start(world: World) -> None:
    """Its record and its disk change; what is not named stays; the next VM has it."""
    async with world.manager() as manager:
        await create(manager, "dev", cpus=1, memory_mb=512, upper_size_bytes=GIB)
        await manager.stop("dev", Progress())
        said: list[str] = []
        shed = await manager.update("dev", UpdateShed(cpus=3, upper_size_bytes=2 * GIB), warnings(said))
        assert (shed["cpus"], shed["memory_mb"], shed["upper_size_bytes"], said) == (3, 512, 2 * GIB, [])
        assert (world.paths.uppers / "dev/upper.ext4").stat().st_size == 2 * GIB
        await manager.start("dev", Progress())
        assert world.backend.started[-1].cpus == 3


async def test_a_disk_is_never_made_smaller(world: World) -> None:
    """The request is refused, and nothing of it is done."""
    async with world.manager() as manager:
        before = await create(manager, "dev", cpus=1, upper_size_bytes=2 * GIB)
        with pytest.raises(UsageError, match="cannot be made smaller"):
            await manager.update("dev", UpdateShed(cpus=2, upper_size_bytes=GIB), Progress())
        assert manager.catalog.get("dev")["cpus"] == before["cpus"]
        assert (world.paths.uppers / "dev/upper.ext4").stat().st_size == 2 * GIB


@pytest.mark.parametrize("error", ["", "QEMU is busy"])
async def test_the_disk_of_a_running_shed_grows_at_once(world: World, error: str) -> None:
    """Its VM is told; where that fails, a warning says that it takes a restart.  Processors always do."""
    growing = Growing(error)
    world.backend.capabilities = replace(world.backend.capabilities, growing=growing)
    async with world.manager() as manager:
        await create(manager, "dev", cpus=1, upper_size_bytes=GIB)
        said: list[str] = []
        await manager.update("dev", UpdateShed(cpus=2, upper_size_bytes=3 * GIB), warnings(said))
        assert growing.told == ([] if error else [("dev", 0, 3 * GIB)])
        assert [error in warning for warning in said] == ([True, False] if error else [True])
        assert "shed restart dev" in said[-1]
        assert manager.catalog.record("dev").upper_size_bytes == 3 * GIB


async def test_a_shed_gets_another_name(world: World) -> None:
    """All of it moves, the old name is free again, and it starts under the new one."""
    async with world.manager() as manager:
        await create(manager, "dev", upper_size_bytes=GIB)
        await manager.stop("dev", Progress())
        assert (await manager.rename("dev", "new"))["name"] == "new"
        assert [shed["name"] for shed in manager.catalog.list()[0]] == ["new"]
        await manager.start("new", Progress())
        await create(manager, "dev")
        assert len(world.machines()) == 2


async def test_renames_that_are_refused(world: World) -> None:
    """Of a running shed, to a taken name, to its own, to no name, of no shed: each with its code; nothing changes."""

    async def refused(code: str, kind: type[ShedError], name: str, to: str) -> None:
        with pytest.raises(kind) as caught:
            await manager.rename(name, to)
        assert caught.value.code == code

    async with world.manager() as manager:
        for name in ("dev", "other"):
            await create(manager, name)
        await refused("SHED_NOT_STOPPED", ConflictError, "dev", "new")
        await manager.stop("dev", Progress())
        await refused("SHED_ALREADY_EXISTS", ConflictError, "dev", "other")
        await refused("SHED_ALREADY_EXISTS", ConflictError, "dev", "dev")
        await refused("INVALID_SHED_NAME", UsageError, "dev", "../up")
        await refused("SHED_NOT_FOUND", NotFoundError, "nobody", "new")
        (world.paths.uppers / "new").mkdir()
        await refused("UPPER_EXISTS", ConflictError, "dev", "new")
        assert sorted(shed["name"] for shed in manager.catalog.list()[0]) == ["dev", "other"]


def test_a_rename_is_done_or_not(world: World) -> None:
    """A server killed at any step leaves one shed, under one of the names, with its disk; the other name is free."""

    async def begin() -> None:
        async with world.manager() as manager:
            await create(manager, "dev")
            with (world.paths.uppers / "dev/upper.ext4").open("r+b") as upper:
                upper.write(b"mine")
            await manager.stop("dev", Progress())

    async def rename(manager: Manager) -> None:
        await manager.rename("dev", "new")

    async def look() -> str:
        async with world.manager() as manager:
            await until(lambda: not folders.leftovers(world.paths))
            (shed,) = manager.catalog.list()[0]
            assert shed["status"] == "stopped"
            name = str(shed["name"])
            with (world.paths.uppers / name / "upper.ext4").open("rb") as upper:
                assert upper.read(4) == b"mine"
            assert [path.name for path in world.paths.uppers.iterdir()] == [name]
            if name == "new":
                await manager.rename("new", "dev")
            return name

    asyncio.run(begin())
    world.with_settings(warm_start=False)
    seen = []
    for step in range(1, 100):
        done = killed_at(step, world, rename, warm=False)
        seen.append((done, asyncio.run(look())))
        if done:
            break
    assert seen[-1] == (True, "new")
    assert {name for _, name in seen} == {"dev", "new"}


@pytest.mark.parametrize("note", ["new", "", "../up", "\xff"])
async def test_a_rename_that_was_cut_short_gives_way(world: World, note: str) -> None:
    """When the new name was taken in the meantime, or the note of it makes no sense, the shed keeps its own."""
    async with world.manager() as manager:
        await create(manager, "dev")
        await manager.stop("dev", Progress())
        await create(manager, "new")
        folders.Folders(world.paths, "dev").renaming.write_text(note)
    async with world.manager() as manager:
        await until(lambda: not folders.leftovers(world.paths))
        assert sorted(shed["name"] for shed in manager.catalog.list()[0]) == ["dev", "new"]
        await manager.start("dev", Progress())
