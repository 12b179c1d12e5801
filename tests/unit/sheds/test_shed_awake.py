"""Leases keep a shed awake that nobody uses: for a time that is bounded, and until they are released."""

from __future__ import annotations

import json
import time

import pytest

from shed.errors import ShedError
from shed.progress import Progress
from shed.sheds import leases, metadata
from support.servers.world import World, create


async def test_a_lease_is_kept_with_the_shed(world: World) -> None:
    """It outlives the server, is shown with the shed, and is gone with it."""
    async with world.manager() as manager:
        await create(manager, "dev")
        assert "awake" not in manager.catalog.get("dev")
        long = await manager.awake.keep("dev", 7200, "a review")
        short = await manager.awake.keep("dev", 60, "")
    async with world.manager() as manager:
        found = manager.catalog.get("dev")["awake"]
        assert [(each["id"], each["reason"]) for each in found] == [(short.id, ""), (long.id, "a review")]
        assert 7100 < metadata.seconds_of(found[1]["until"]) - time.time() <= 7200
        assert await manager.awake.release("dev", short.id) == [short]
        assert await manager.awake.release("dev", None) == [long]
        assert "awake" not in manager.catalog.get("dev")
        assert not (world.instance("dev") / "awake.json").exists()
        await manager.awake.keep("dev", 60, "")
        await manager.delete("dev", force=True, progress=Progress())
        await create(manager, "dev")
        assert "awake" not in manager.catalog.get("dev")


async def test_a_suspended_shed_goes_on_for_it(world: World) -> None:
    """A stopped one is not started."""
    async with world.manager() as manager:
        await create(manager, "dev")
        await manager.suspensions.suspend("dev", Progress())
        await manager.awake.keep("dev", 60, "")
        assert manager.catalog.get("dev")["status"] == "running"
        await manager.suspensions.suspend("dev", Progress())  # by command all the same
        await manager.stop("dev", Progress())
        with pytest.raises(ShedError) as caught:
            await manager.awake.keep("dev", 60, "")
        assert caught.value.code == "SHED_NOT_RUNNING"


async def test_leases_are_bounded(world: World) -> None:
    """In length and number; what is refused changes nothing."""
    async with world.manager() as manager:
        await create(manager, "dev")
        for wrong in (0.0, -1.0, 86401.0, float("nan"), float("inf")):
            with pytest.raises(ShedError, match="not kept awake for"):
                await manager.awake.keep("dev", wrong, "")
        for _ in range(leases.MOST_LEASES):
            await manager.awake.keep("dev", 60, "")
        for code, work in (
            ("TOO_MANY_LEASES", manager.awake.keep("dev", 60, "")),
            ("LEASE_NOT_FOUND", manager.awake.release("dev", "00000000")),
            ("SHED_NOT_FOUND", manager.awake.keep("other", 60, "")),
            ("SHED_NOT_FOUND", manager.awake.release("other", None)),
        ):
            with pytest.raises(ShedError) as caught:
                await work
            assert caught.value.code == code
        assert len(manager.catalog.get("dev")["awake"]) == leases.MOST_LEASES
        assert not manager.guests.use.is_open("dev")


async def test_what_is_over_or_makes_no_sense_holds_nothing(world: World) -> None:
    """Also an end that is further away than any lease's, as after the clock was set."""
    async with world.manager() as manager:
        await create(manager, "dev")
        path = world.instance("dev") / "awake.json"
        for until in (metadata.at(time.time() - 5), metadata.at(time.time() + 9e6), "soon"):
            path.write_text(json.dumps({"leases": [{"id": "1", "until": until, "reason": ""}]}))
            assert leases.load(path.parent) == []
        for text in ("", "{}", "[]", '{"leases": [1]}', '{"leases": [{}]}', '{"leases": {}}'):
            path.write_text(text)
            assert "awake" not in manager.catalog.get("dev")
        lease = await manager.awake.keep("dev", 60, "")
        assert leases.load(path.parent) == [lease]
