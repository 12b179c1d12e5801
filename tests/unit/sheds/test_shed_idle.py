"""Sheds that nobody uses are suspended, and only those."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest

from shed.api.making import CreateShed, UpdateShed
from shed.errors import ConflictError, UnavailableError, UsageError
from shed.progress import Progress
from shed.sheds import idle, metadata
from shed.sheds.create import plan
from shed.sheds.folders import Folders
from shed.sheds.link import Link
from shed.sheds.load import Threads
from shed.sheds.manager import Manager
from support.servers.world import World, create
from support.waiting import until


class Watch:
    """A manager whose clock a test moves, and what its VMs are seen to do."""

    def __init__(self, manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
        self.manager = manager
        self.now = 1000.0
        self.ran = 0.0
        """Seconds of a processor that each VM has had."""
        self.flows: dict[str, int] | None = {}
        self.looks = 0
        manager.guests.use.clock = lambda: self.now
        monkeypatch.setattr(idle, "_OFTEN", 0.01)
        monkeypatch.setattr(idle, "_SELDOM", 0.01)
        monkeypatch.setattr(idle, "threads_of", self._threads)
        monkeypatch.setattr(manager._idle, "_flows", self._seen)

    def _threads(self, pid: int) -> Threads:
        return {"1": (self.ran, 0.0)}

    def _seen(self) -> dict[str, int] | None:
        self.looks += 1
        return self.flows

    async def later(self, seconds: float, *, ran: float = 0.0) -> None:
        """Let time pass, and wait for a look that begins then."""
        self.now += seconds
        self.ran += ran
        before = self.looks
        await until(lambda: self.looks > before or status(self.manager) == "suspended")


@pytest.fixture
async def watch(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watch]:
    """A server with the shed ``dev``, which is to be suspended after an hour, and was looked at."""
    async with world.manager() as manager:
        found = Watch(manager, monkeypatch)
        await create(manager, "dev", idle_suspend=3600)
        await until(lambda: found.looks > 0)
        yield found


def status(manager: Manager) -> str:
    """Return the status of the shed."""
    return str(manager.catalog.get("dev")["status"])


def told(manager: Manager) -> list[tuple[str, str]]:
    """Return the kinds of the events about the shed, and what they say."""
    return [(event.kind, event.message) for event in manager.events.recent(lambda event: event.shed == "dev")]


async def test_an_idle_shed_is_suspended(watch: Watch) -> None:
    """That is told before and after; what touches it has it go on, and its time begins anew."""
    manager = watch.manager
    assert manager.catalog.get("dev")["idle_suspend"] == 3600
    await watch.later(3400)
    await until(lambda: told(manager)[-1] == ("shed.idle", "it is suspended in about 200 s, unless it is used before"))
    assert status(manager) == "running"
    await watch.later(200)
    await until(lambda: status(manager) == "suspended")
    await until(lambda: told(manager)[-1] == ("shed.suspended", "it was idle"))
    assert manager.catalog.get("dev")["suspended_by"] == "idle"
    (await manager.guests.open_exec("dev")).close()
    await until(lambda: "dev" in manager.guests.use.watched)
    await watch.later(3400)
    assert (status(manager), "suspended_by" in manager.catalog.get("dev")) == ("running", False)
    await watch.later(200)
    await until(lambda: status(manager) == "suspended")
    assert [kind for kind, _ in told(manager)].count("shed.idle") <= 2


async def test_a_stream_keeps_it_awake(watch: Watch) -> None:
    """As long as it is open, whatever it carries; then the time begins anew.  A look at it does not count."""
    stream = await watch.manager.guests.open_exec("dev")
    for _ in range(3):
        await watch.later(4000)
    stream.close()
    await watch.later(3500)
    assert status(watch.manager) == "running"
    (await watch.manager.guests.open_exec("dev", autostart=False, looks=True)).close()
    await watch.later(200)
    await until(lambda: status(watch.manager) == "suspended")


async def test_connections_and_work_keep_it_awake(watch: Watch) -> None:
    """And a relay that does not say how many connections there are does, too."""
    for flows in ({"dev": 1}, None):
        watch.flows = flows
        for _ in range(3):
            await watch.later(1800)
    watch.flows = {"other": 1}
    for _ in range(3):
        await watch.later(1800, ran=300)
    assert status(watch.manager) == "running"
    await watch.later(1800, ran=1)
    await watch.later(1800, ran=1)
    await watch.later(1800, ran=1)
    await until(lambda: status(watch.manager) == "suspended")


async def test_who_comes_meanwhile_is_first(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is asked for when the shed is about to be suspended finds it running."""
    manager = watch.manager
    hold = manager.suspensions._hold
    opened: list[str] = []

    def held(name: str, doing: str) -> AbstractAsyncContextManager[tuple[Folders, Link]]:
        if not opened:
            manager.guests.use.begin("dev")
            opened.append(doing)
        return hold(name, doing)

    monkeypatch.setattr(manager.suspensions, "_hold", held)
    await watch.later(3600)
    await until(lambda: opened == ["suspend"] and "dev" not in manager._idle._ending)
    assert status(manager) == "running"
    assert [kind for kind, _ in told(manager)] == ["shed.created"]


async def test_one_that_cannot_be_suspended_runs_on(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """That is told, and tried again after its time."""
    tried = []

    async def fails(name: str, progress: Progress, **_: object) -> None:
        tried.append(name)
        raise UnavailableError("no space")

    monkeypatch.setattr(watch.manager._idle, "_suspend", fails)
    await watch.later(3600)
    await until(lambda: "cannot be suspended: no space" in caplog.text)
    await watch.later(300)
    await watch.later(3000)
    assert tried == ["dev"]
    await watch.later(600)
    await until(lambda: tried == ["dev", "dev"])
    assert status(watch.manager) == "running"


async def test_the_time_is_changed(watch: Watch) -> None:
    """Also to never; it is kept in the record, and one that is damaged is told as such."""
    manager = watch.manager
    assert (await manager.update("dev", UpdateShed(cpus=1), Progress()))["idle_suspend"] == 3600
    assert (await manager.update("dev", UpdateShed(idle_suspend=60), Progress()))["idle_suspend"] == 60
    assert "idle_suspend" not in await manager.update("dev", UpdateShed(idle_suspend=0), Progress())
    await until(lambda: not manager.guests.use.watched)
    watch.now += 9999
    await manager.update("dev", UpdateShed(idle_suspend=3600), Progress())
    await until(lambda: manager.guests.use.watched)
    assert status(manager) == "running"


async def test_a_servers_default(world: World) -> None:
    """It holds for new sheds that can be suspended; each may say otherwise."""
    world.with_settings(idle_suspend=1800.0)
    async with world.manager() as manager:
        assert (await create(manager, "dev"))["idle_suspend"] == 1800
        assert "idle_suspend" not in await create(manager, "never", idle_suspend=0)
    shared = CreateShed(name="shared", local_dir=str(world.blobs))
    assert plan(shared, world.settings).record.idle_suspend == 0


async def test_times_and_sheds_that_cannot_be(world: World) -> None:
    """They are refused with the ways out; nothing is made or changed."""

    async with world.manager() as manager:
        for wrong in (1.0, -1.0, 1e12, float("nan"), float("inf")):
            with pytest.raises(UsageError, match="not suspended after"):
                await create(manager, "dev", idle_suspend=wrong)
        with pytest.raises(ConflictError, match="shares") as caught:
            await create(manager, "dev", idle_suspend=60.0, local_dir=str(world.blobs))
        assert all(way in caught.value.next_step for way in ("shed cp", "--ttl-action stop", "--idle-suspend none"))
        await create(manager, "dev")
        record = metadata.load(world.instance("dev"))
        for changed in (replace(record, local_dir=str(world.blobs)), replace(record, network="nic")):
            metadata.save(world.instance("dev"), changed)
            with pytest.raises(ConflictError) as caught:
                await manager.update("dev", UpdateShed(idle_suspend=60), Progress())
            assert caught.value.code == "CANNOT_SUSPEND"
            assert "idle_suspend" not in await manager.update("dev", UpdateShed(idle_suspend=0), Progress())
        metadata.save(world.instance("dev"), replace(record, idle_suspend=-5))
        with pytest.raises(metadata.DamagedError, match="idle_suspend"):
            metadata.load(world.instance("dev"))


@pytest.mark.parametrize(("by", "says"), [("command", ""), ("ttl", "its time was up")])
async def test_what_suspended_it_is_told(world: World, by: str, says: str) -> None:
    """By command, or because its time was up."""
    async with world.manager() as manager:
        await create(manager, "dev", ttl=None if by == "command" else 0.5, ttl_action="suspend")
        if by == "command":
            await manager.suspensions.suspend("dev", Progress())
        await until(lambda: status(manager) == "suspended")
        await until(lambda: told(manager)[-1] == ("shed.suspended", says))
        assert manager.catalog.get("dev")["suspended_by"] == by


async def test_a_lease_keeps_it_awake(watch: Watch) -> None:
    """Until it is released; its time begins then."""
    await watch.manager.awake.keep("dev", 60, "")
    for _ in range(3):
        await watch.later(3000)
    await watch.manager.awake.release("dev", None)
    await watch.later(3500)
    assert status(watch.manager) == "running"
    await watch.later(200)
    await until(lambda: status(watch.manager) == "suspended")
