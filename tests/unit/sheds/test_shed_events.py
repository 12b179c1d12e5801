"""The events of a server: who hears what, and that nobody who does not listen holds the others up."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from shed.api.eventlog import KEPT, Event
from shed.errors import ShedError, StorageError
from shed.progress import Progress
from shed.sheds import events, rename
from shed.sheds.events import Events, Follower, wanted
from support.servers.world import World, create

ALL = wanted(shed=None, kinds=None)


def told(found: list[Event]) -> list[tuple[str, str]]:
    """Return the kinds and the sheds of events."""
    return [(event.kind, event.shed) for event in found]


async def heard(follower: Follower) -> list[Event]:
    """Return what a follower hears until it is closed, which it must be."""
    found = []
    while (event := await follower.next()) is not None:
        found.append(event)
    return found


@pytest.mark.parametrize(
    ("shed", "kinds", "expected"),
    [
        (None, None, ["shed.created", "egress.refused", "shed.created"]),
        ("dev", None, ["shed.created", "egress.refused"]),
        (None, {"egress"}, ["egress.refused"]),
        (None, {"egress.connected", "shed"}, ["shed.created", "egress.connected", "shed.created"]),
        ("x", None, []),
        ("x", {"egress.left_out"}, ["egress.left_out"]),
    ],
)
async def test_followers_hear_what_they_asked_for(
    shed: str | None, kinds: set[str] | None, expected: list[str]
) -> None:
    """By shed and by kind or group; each connection that begins is told only to those who name that kind."""
    bus = Events()
    follower = bus.follow(wanted(shed=shed, kinds=None if kinds is None else frozenset(kinds)))
    for kind, name in (
        ("shed.created", "dev"), ("egress.refused", "dev"), ("egress.connected", "dev"), ("shed.created", "other"),
        *([("egress.left_out", "")] if kinds == {"egress.left_out"} else []),
    ):  # fmt: skip
        bus.tell(kind, name)
    bus.close()
    assert [event.kind for event in await heard(follower)] == expected


async def test_a_follower_begins_with_what_was_before() -> None:
    """The last so many that fit, without a gap to what comes; and the server remembers only so many."""
    bus = Events()
    for number in range(KEPT + 5):
        bus.tell("shed.started", f"s{number}")
    assert [event.shed for event in bus.recent(ALL)][:: KEPT - 1] == ["s5", f"s{KEPT + 4}"]
    assert bus.recent(ALL, 0) == []
    follower = bus.follow(ALL, 2)
    bus.tell("shed.stopped", "last")
    bus.close()
    assert [event.shed for event in await heard(follower)] == [f"s{KEPT + 3}", f"s{KEPT + 4}", "last"]


async def test_one_that_does_not_listen_is_told_what_it_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue is bounded; others miss nothing."""
    monkeypatch.setattr(events, "MOST_WAITING", 3)
    bus = Events()
    slow, quick = bus.follow(ALL), bus.follow(ALL)
    for number in range(5):
        bus.tell("shed.started", f"s{number}")
        event = await quick.next()
        assert event is not None
        assert event.shed == f"s{number}"
    bus.close()
    found = await heard(slow)
    assert told(found[:3]) == [("shed.started", f"s{number}") for number in range(3)]
    assert [(event.kind, event.count) for event in found[3:]] == [("dropped", 2)]


async def test_what_becomes_of_a_shed_is_told(tmp_path: Path) -> None:
    """Made, stopped, started, failed, deleted; and a guest that ends by itself."""
    world = World(tmp_path).prepare()
    async with world.manager() as manager:
        follower = manager.events.follow(wanted(shed="dev", kinds=frozenset({"shed"})))

        async def next_event() -> tuple[str, str]:
            async with asyncio.timeout(60):
                event = await follower.next()
            assert event is not None
            return event.kind, event.message

        await create(manager, "dev")
        assert await next_event() == ("shed.created", "")
        await manager.stop("dev", Progress())
        assert await next_event() == ("shed.stopped", "")
        await manager.start("dev", Progress())
        assert await next_event() == ("shed.started", "")
        world.kill_machines()
        assert await next_event() == ("shed.stopped", "its virtual machine has ended")
        world.paths.uppers.joinpath("dev", "upper.ext4").unlink()
        with pytest.raises(ShedError):
            await manager.start("dev", Progress())
        kind, message = await next_event()
        assert (kind, "upper.ext4" in message) == ("shed.failed", True)
        with pytest.raises(ShedError):
            await manager.start("nobody", Progress())
        await manager.delete("dev", force=True, progress=Progress())
        assert await next_event() == ("shed.deleted", "")


async def test_a_rename_that_fails_is_told_of_the_shed_that_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of the new name, which nobody has."""
    world = World(tmp_path).prepare()
    async with world.manager() as manager:
        await create(manager, "dev")
        await manager.stop("dev", Progress())

        def fail(*_: object, **__: object) -> None:
            raise StorageError("the disk is full")

        monkeypatch.setattr(rename, "atomic_write", fail)
        with pytest.raises(StorageError):
            await manager.rename("dev", "new")
        failed = manager.events.recent(wanted(shed=None, kinds=frozenset({"shed.failed"})))
        assert [(event.shed, event.message) for event in failed] == [("dev", "rename: the disk is full")]
