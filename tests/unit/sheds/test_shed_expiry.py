"""Sheds with a time to live: they are deleted when it is over, whatever they do then."""

import json
import logging
from dataclasses import replace

import pytest

from shed.api.making import UpdateShed
from shed.errors import ConflictError, UsageError
from shed.progress import Progress
from shed.sheds import expiry, metadata
from shed.sheds.manager import Manager
from support.servers.world import World, create
from support.waiting import until


def told(manager: Manager) -> list[tuple[str, str]]:
    """Return the kinds of the events about `dev`, and what they say."""
    return [(event.kind, event.message) for event in manager.events.recent(lambda event: event.shed == "dev")]


def is_over(world: World, name: str) -> None:
    """Have the time of a shed have been up since 1970, whatever server runs."""
    record = metadata.load(world.instance(name))
    metadata.save(world.instance(name), replace(record, expires_at=metadata.at(1)))


async def test_a_running_shed_is_deleted_when_its_time_is_up(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """That is told before and after, nothing of it is left, and another shed stays."""
    async with world.manager() as manager:
        await create(manager, "other")
        shed = await create(manager, "dev", ttl=1)
        assert metadata.seconds_of(shed["expires_at"]) >= metadata.seconds_of(shed["created_at"]) + 1
        assert "expires_at" not in await create(manager, "third")
        await until(lambda: ("shed.deleted", "its time was up") in told(manager))
        assert [kind for kind, _ in told(manager)] == ["shed.created", "shed.expiring", "shed.deleted"]
        assert shed["expires_at"] in told(manager)[1][1]
        assert [shed["name"] for shed in manager.catalog.list()[0]] == ["other", "third"]
        assert not [path for path in world.traces() if "dev" in path]
        assert len(world.machines()) == 2
    assert "shed dev is deleted: its time is up" in caplog.text


@pytest.mark.parametrize("stopped", [True, False])
async def test_its_time_goes_on_while_no_server_runs(world: World, *, stopped: bool) -> None:
    """The next server deletes it, whether it runs or is stopped."""
    async with world.manager() as manager:
        await create(manager, "dev", ttl=3600)
        if stopped:
            await manager.stop("dev", Progress())
    is_over(world, "dev")
    async with world.manager():
        await until(lambda: not world.traces() and not world.machines())


async def test_its_end_is_changed(world: World) -> None:
    """Later, never, and soon; what is not named stays.  It is kept in its record, under another name, too."""
    async with world.manager() as manager:
        end = (await create(manager, "dev", ttl=3600))["expires_at"]
        assert (await manager.update("dev", UpdateShed(cpus=1), Progress()))["expires_at"] == end
        assert (await manager.update("dev", UpdateShed(ttl=7200), Progress()))["expires_at"] > end
        assert "expires_at" not in await manager.update("dev", UpdateShed(ttl=0), Progress())
        assert metadata.load(world.instance("dev")).expires_at is None
        assert [kind for kind, _ in told(manager)] == ["shed.created"]
        await manager.update("dev", UpdateShed(ttl=3600), Progress())
        await manager.stop("dev", Progress())
        assert "expires_at" in await manager.rename("dev", "new")
        await manager.update("new", UpdateShed(ttl=0.1), Progress())
        await until(lambda: not world.traces())


async def test_a_new_end_is_told_anew(world: World) -> None:
    """Once for each."""
    async with world.manager() as manager:
        first = (await create(manager, "dev", ttl=200))["expires_at"]
        await until(lambda: len(told(manager)) == 2)
        second = (await manager.update("dev", UpdateShed(ttl=100), Progress()))["expires_at"]
        await until(lambda: len(told(manager)) == 3)
        assert [message for kind, message in told(manager) if kind == "shed.expiring"] == [
            f"it is deleted at {end}" for end in (first, second)
        ]


async def test_a_start_is_ended_when_the_time_is_up(world: World) -> None:
    """Who waits for it is told why, and nothing of the shed is left."""
    async with world.manager() as manager:
        await create(manager, "dev", ttl=3600)
        await manager.stop("dev", Progress())
        world.backend.faults.add("mute")
        await manager.update("dev", UpdateShed(ttl=1), Progress())
        with pytest.raises(ConflictError, match="its time was up") as caught:
            await manager.start("dev", Progress())
        assert caught.value.code == "SHED_START_ENDED"
        await until(lambda: not world.traces())
        assert not world.machines()


async def test_what_cannot_be_deleted_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As long as it cannot be told whether its VM runs, all of it stays."""
    monkeypatch.setattr(expiry, "_LOOK", 0.05)
    async with world.manager() as manager:
        await create(manager, "dev", ttl=3600)
        world.backend.unknown = True
        is_over(world, "dev")
        await until(lambda: caplog.text.count("cannot be deleted") >= 2)
        assert world.instance("dev").exists()
        world.backend.unknown = False
        await until(lambda: not world.traces())


async def test_a_damaged_end_is_none(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The shed is told as damaged, and nothing deletes it."""
    caplog.set_level(logging.WARNING)
    async with world.manager() as manager:
        await create(manager, "dev", ttl=3600)
    path = world.instance("dev") / metadata.METADATA
    for wrong in ("soon", "2026-01-01", "", 1):
        path.write_text(json.dumps({**json.loads(path.read_text()), "expires_at": wrong}))
        with pytest.raises(metadata.DamagedError, match="expires_at"):
            metadata.load(path.parent)
    async with world.manager() as manager:
        await create(manager, "other", ttl=0.1)
        await until(lambda: not world.instance("other").exists())
        assert [shed["status"] for shed in manager.catalog.list()[0]] == ["error"]


@pytest.mark.parametrize("ttl", [-1.0, 1e12, float("inf"), float("nan")])
async def test_times_that_cannot_be(world: World, ttl: float) -> None:
    """They are refused; nothing is made or changed."""
    async with world.manager() as manager:
        with pytest.raises(UsageError, match="cannot live for"):
            await create(manager, "dev", ttl=ttl)
        with pytest.raises(UsageError, match="cannot live for"):
            await create(manager, "dev", ttl=0.0)
        before = await create(manager, "dev")
        with pytest.raises(UsageError, match="cannot live for"):
            await manager.update("dev", UpdateShed(ttl=ttl), Progress())
        assert manager.catalog.get("dev").keys() == before.keys() - {"boot", "timings"}


@pytest.mark.parametrize(("action", "status"), [("stop", "stopped"), ("suspend", "suspended")])
async def test_a_shed_that_rests_when_its_time_is_up(world: World, action: str, status: str) -> None:
    """It is there, has no end any more, and is not ended again when it is started."""
    async with world.manager() as manager:
        made = await create(manager, "dev", ttl=1, ttl_action=action)
        assert made["ttl_action"] == action
        await until(lambda: metadata.load(world.instance("dev")).expires_at is None)
        found = manager.catalog.get("dev")
        assert (found["status"], "expires_at" in found, "ttl_action" in found) == (status, False, False)
        assert ("shed.expiring", f"it is {status} at {made['expires_at']}") in told(manager)
        await manager.start("dev", Progress())
        assert manager.catalog.get("dev")["status"] == "running"
        await manager.update("dev", UpdateShed(ttl=0.1), Progress())
        await until(lambda: manager.catalog.get("dev")["status"] == status)


async def test_one_that_rests_already_is_left_alone(world: World) -> None:
    """A suspended one is not stopped; what cannot be suspended then is refused before."""
    async with world.manager() as manager:
        await create(manager, "dev", ttl=3600, ttl_action="stop")
        await manager.suspensions.suspend("dev", Progress())
        await manager.update("dev", UpdateShed(ttl=0.1), Progress())
        await until(lambda: metadata.load(world.instance("dev")).expires_at is None)
        assert manager.catalog.get("dev")["status"] == "suspended"
        await create(manager, "shared")
        metadata.save(world.instance("shared"), replace(manager.catalog.record("shared"), local_dir=str(world.blobs)))
        for work in (
            create(manager, "other", local_dir=str(world.blobs), ttl_action="suspend"),
            manager.update("shared", UpdateShed(ttl_action="suspend"), Progress()),
        ):
            with pytest.raises(UsageError, match="cannot be suspended"):
                await work
