"""Sheds that live as long as the clients for which they were made."""

from __future__ import annotations

from pathlib import Path

import pytest

from shed.api.making import CreateShed
from shed.errors import NotFoundError
from shed.progress import Progress
from shed.sheds.manager import Manager
from support.servers.world import World, create
from support.waiting import until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A world whose VMs are fake."""
    return World(tmp_path).prepare()


async def attach(manager: Manager, name: str) -> str:
    """Make a shed for a client, and return the word for that."""
    client = manager.attached.begin()
    await manager.create(CreateShed(name=name, attached=True), Progress(), client=client)
    return client


async def test_it_goes_with_its_client_and_others_stay(world: World) -> None:
    """Whatever it is called by now; what has its name by now stays."""
    async with world.manager() as manager:
        await create(manager, "dev")
        renamed, replaced, other = [await attach(manager, name) for name in ("a", "b", "c")]
        assert manager.catalog.get("a")["attached"]
        await manager.stop("a", Progress())
        await manager.rename("a", "d")
        await manager.delete("b", force=True, progress=Progress())
        await create(manager, "b")
        await manager.attached.end(renamed)
        await manager.attached.end(replaced)
        assert {record.name for record in manager.catalog.records()} == {"b", "c", "dev"}
        await manager.attached.end(other)
        with pytest.raises(NotFoundError):
            manager.catalog.get("c")
        assert "attached" not in manager.catalog.get("dev")
        for name in ("b", "dev"):
            await manager.delete(name, force=True, progress=Progress())
    assert world.traces() == set()


async def test_the_next_server_deletes_what_clients_of_the_last_one_had(world: World) -> None:
    """Also what runs; and what was made meanwhile for its own clients stays."""
    async with world.manager() as manager:
        await create(manager, "dev")
        await attach(manager, "old")
    async with world.manager() as manager:
        client = await attach(manager, "new")
        await until(lambda: not world.instance("old").exists())
        assert {record.name for record in manager.catalog.records()} == {"dev", "new"}
        await manager.attached.end(client)
        await manager.delete("dev", force=True, progress=Progress())
    assert world.machines() == []
