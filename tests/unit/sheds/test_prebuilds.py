"""Sheds are made ready ahead, kept, and others go on from them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shed.api.making import CreateShed
from shed.api.prebuilds import CreatePrebuild
from shed.errors import ConflictError, DataError, NotFoundError, ShedError, UnavailableError, UsageError
from shed.progress import Event, PhaseEvent, Progress
from shed.sheds import metadata, prebuilds
from shed.sheds.manager import Manager
from support.servers.world import GIB, World
from support.waiting import until


async def build(manager: Manager, *commands: str, limit: float = 60, every: float | None = None, **shed: Any) -> Any:
    """Make the prebuild ``web``."""
    wanted = CreateShed(name="web", upper_size_bytes=GIB, **shed)
    return await manager.prebuilds.create(
        CreatePrebuild(shed=wanted, commands=list(commands), limit=limit, every=every), Progress()
    )


async def made_from(manager: Manager, **options: Any) -> Any:
    """Make a shed from it, as a request does."""
    wanted = manager.prebuilds.merged(CreateShed(name="dev", prebuild="web", **options))
    async with manager.prebuilds.using(wanted.from_snapshot):
        return await manager.create(wanted, Progress())


def record(world: World, name: str = "dev") -> metadata.Record:
    """Return the record of a shed."""
    return metadata.load(world.instance(name))


async def test_a_shed_goes_on_from_a_prebuild(world: World, tmp_path: Path) -> None:
    """Its commands have run in order, once; of the shed in which they did nothing is left.  It has the settings of the
    prebuild, and what is asked for itself wins.
    """
    async with world.manager() as manager:
        place = tmp_path / "said"
        made = await build(
            manager,
            f"echo one >>{place}",
            f"cat {place}; echo two >>{place}",
            env={"A": "1", "B": "1"},
            labels={"x": "y"},
        )
        assert place.read_text() == "one\ntwo\n"
        assert manager.prebuilds.store.log("web").read_text().splitlines()[-2:] == [
            f"+ cat {place}; echo two >>{place}",
            "one",
        ]
        assert (made["status"], made["snapshot"], made["memory_mb"], made["failed"]) == ("ready", "web.1", 2048, "")
        assert manager.catalog.list()[0] == []
        assert world.machines() == []
        shed = await made_from(manager, env={"A": "2"}, egress=[])
        assert "fork" in shed["timings"]
        assert shed["labels"] == {"x": "y"}
        assert (record(world).variables, record(world).egress, record(world).expires_at) == ({"A": "2"}, [], None)


async def test_a_command_that_fails(world: World) -> None:
    """It ends the build, and is named with what it said; nothing is left but the log."""
    async with world.manager() as manager:
        with pytest.raises(DataError, match=r"command 2, 'echo no.*', ended with 7\n  no such thing") as caught:
            await build(manager, "true", "echo no such thing >&2; exit 7", "echo never")
        log = manager.prebuilds.store.log("web")
        assert str(log) in (caught.value.hint or "")
        assert "never" not in log.read_text()
        assert log.stat().st_mode & 0o777 == 0o600
        assert manager.prebuilds.store.names() == manager.snapshots.store.names() == []
        assert manager.catalog.list()[0] == []
        await build(manager)  # the name is free


async def test_commands_have_a_limit(world: World) -> None:
    """What does not end is ended with its shed."""
    async with world.manager() as manager:
        with pytest.raises(DataError, match=r"did not end: 0\.5 s were given to all"):
            await build(manager, "sleep 20", limit=0.5)
        assert manager.catalog.list()[0] == []


async def test_a_client_that_leaves_ends_the_build(world: World) -> None:
    """While a command runs, and nothing is left."""

    def leave(event: Event) -> None:
        if isinstance(event, PhaseEvent) and event.name == "command":
            progress.abandoned.set()

    progress = Progress(leave)
    async with world.manager() as manager:
        wanted = CreatePrebuild(shed=CreateShed(name="web", upper_size_bytes=GIB), commands=["sleep 20"])
        with pytest.raises(UnavailableError) as caught:
            await manager.prebuilds.create(wanted, progress)
        assert caught.value.code == "STOPPED"
        assert manager.catalog.list()[0] == []
        assert manager.prebuilds.store.names() == []


async def test_building_anew(world: World) -> None:
    """The earlier one goes when the new one is there and no shed is being made from it.  One that fails leaves it."""
    async with world.manager() as manager:
        store = manager.snapshots.store
        await build(manager, "true")
        async with manager.prebuilds.using("web.1"):
            assert (await manager.prebuilds.build("web", Progress()))["snapshot"] == "web.2"
            assert store.names() == ["web.1", "web.2"]
        assert store.names() == ["web.2"]
        world.backend.faults.add("no-start")
        with pytest.raises(ShedError, match="cannot be started"):
            await manager.prebuilds.build("web", Progress())
        world.backend.faults.clear()
        found = await manager.prebuilds.view(manager.prebuilds.store.load("web"))
        assert (found["status"], found["snapshot"]) == ("ready", "web.2")
        assert "cannot be started" in found["failed"]
        await made_from(manager)
        assert (await manager.prebuilds.build("web", Progress()))["failed"] == ""


async def test_a_killed_server_leaves_nothing_for_ever(world: World) -> None:
    """A snapshot whose name a build had announced is removed by the next server."""
    async with world.manager() as manager:
        await build(manager, "true")
        await made_from(manager)
        announced = manager.prebuilds._announce(manager.prebuilds.store.load("web"))
        assert announced.unused == ("web.2",)
        await manager.create(CreateShed(name="web-build-1", upper_size_bytes=GIB), Progress())
        await manager.snapshots.create("web-build-1", "web.2", "", Progress())
    async with world.manager() as manager:
        await until(lambda: manager.snapshots.store.names() == ["web.1"])
        await until(lambda: manager.prebuilds.store.load("web").unused == ())


async def test_it_is_built_anew_when_it_is_due(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the server itself, and not before."""
    monkeypatch.setattr(prebuilds, "_LOOK", 0.01)
    async with world.manager() as manager:
        await build(manager, every=3600)
        found = manager.prebuilds.store.load("web")
        await asyncio.sleep(0.1)
        assert manager.prebuilds.store.load("web") == found
        late = metadata.at(metadata.seconds_of(found.tried_at) - 3601)
        manager.prebuilds.store.save(replace(found, tried_at=late))
        await until(lambda: manager.prebuilds.store.load("web").snapshot == "web.2")


async def test_one_that_is_removed(world: World) -> None:
    """Its snapshot goes with it; sheds that were made from it stay.  What is damaged can be removed, too."""
    async with world.manager() as manager:
        await build(manager)
        await made_from(manager)
        await manager.prebuilds.remove("web")
        assert manager.snapshots.store.names() == manager.prebuilds.store.names() == []
        assert [shed["name"] for shed in manager.catalog.list()[0]] == ["dev"]
        for again in (manager.prebuilds.remove("web"), manager.prebuilds.build("web", Progress())):
            with pytest.raises(NotFoundError):
                await again
        (world.paths.prebuilds / "web.json").write_text('{"version": 1}')
        with pytest.raises(DataError, match="'web' cannot be read"):
            manager.prebuilds.merged(CreateShed(name="dev", prebuild="web"))
        assert manager.prebuilds.store.all()[0] == []
        await manager.prebuilds.remove("web")
        assert not list(world.paths.prebuilds.iterdir())


async def test_what_is_refused(world: World) -> None:
    """What sheds cannot share; a name that is taken; one that is being built; an image beside it; no snapshot."""
    async with world.manager() as manager:
        refused: list[dict[str, Any]] = [{"local_dir": "/tmp"}, {"ports": ["80"]}, {"ttl": 5.0}, {"prebuild": "x"}]
        for option in refused:
            with pytest.raises(UsageError, match=f"cannot have {next(iter(option))}"):
                await build(manager, **option)
        await build(manager)
        with pytest.raises(ConflictError) as caught:
            await build(manager)
        assert caught.value.code == "PREBUILD_ALREADY_EXISTS"
        with manager.prebuilds._busy("web"), pytest.raises(ConflictError) as caught:
            await manager.prebuilds.build("web", Progress())
        assert caught.value.code == "PREBUILD_BUSY"
        others: list[dict[str, Any]] = [{"image": "base"}, {"from_snapshot": "web.1"}]
        for option in others:
            with pytest.raises(UsageError, match="not from several"):
                manager.prebuilds.merged(CreateShed(name="dev", prebuild="web", **option))
        manager.snapshots.store.remove("web.1")
        assert (await manager.prebuilds.view(manager.prebuilds.store.load("web")))["status"] == "missing"
        with pytest.raises(NotFoundError, match=r"web\.1"):
            await made_from(manager)


async def test_a_users_snapshot_of_the_same_name_stays(world: World) -> None:
    """Its own was removed by hand, and another took the name: neither a build nor a removal deletes that."""
    async with world.manager() as manager:
        await build(manager)
        await made_from(manager)
        manager.snapshots.store.remove("web.1")
        await manager.snapshots.create("dev", "web.1", "precious", Progress())
        assert (await manager.prebuilds.build("web", Progress()))["snapshot"] == "web.2"
        assert manager.prebuilds.store.load("web").unused == ()
        await manager.prebuilds.remove("web")
        assert manager.snapshots.store.names() == ["web.1"]
