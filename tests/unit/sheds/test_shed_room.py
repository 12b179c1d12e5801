"""Sheds that stand still because the host's disk is full."""

from __future__ import annotations

import pytest

from shed.sheds import room
from support.servers.world import World, create
from support.waiting import until


async def test_a_shed_that_waits_for_room_says_so_and_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """`shed list` tells it; it is not told to go on before there is room, and then it is, without anybody's doing."""
    free = 0
    monkeypatch.setattr(room.Room, "_free", lambda _: free)
    monkeypatch.setattr(room, "_OFTEN", 0.01)
    monkeypatch.setattr(room, "_SELDOM", 0.01)

    async def main() -> None:
        nonlocal free
        async with world.manager() as manager:
            await create(manager, "one")
            await create(manager, "two")
            world.backend.full_disk.full.add("one")
            await until(lambda: "stands still" in manager.catalog.get("one").get("detail", ""))
            assert "stands still" not in manager.catalog.get("two").get("detail", "")
            free = room._ENOUGH
            await until(lambda: not world.backend.full_disk.full)
            await until(lambda: "stands still" not in manager.catalog.get("one").get("detail", ""))

    await main()
