"""Between the look at an image and the marker that keeps it, a prune is either seen or waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shed.errors import NotFoundError
from shed.images.prune import prune
from shed.images.tags import remove_image
from shed.oci.leases import pruning
from shed.oci.store import LayoutStore
from shed.progress import Progress
from shed.sheds.pins import pins
from support.images.stored import put_image
from support.servers.world import World, create


@pytest.fixture
def store(world: World) -> LayoutStore:
    """The world's store, with an image that is called mine."""
    store = LayoutStore(world.paths.images)
    put_image(store, "mine", "mine")
    return store


async def test_an_image_that_is_pruned_after_it_was_found(
    world: World, store: LayoutStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The create says that it is gone, and leaves nothing."""
    resolve = world.resolve

    def resolve_and_lose(reference: str) -> Any:
        image = resolve(reference)
        if reference == "mine":
            remove_image(store, "mine", [], {})
            prune(store, lambda: pins(world.paths), {})
        return image

    monkeypatch.setattr(World, "resolve", property(lambda world: resolve_and_lose))
    async with world.manager() as manager:
        with pytest.raises(NotFoundError, match="sha256:"):
            await create(manager, "dev", image="mine")
    assert world.traces() == set()
    assert store.blob_digests() == []


async def test_a_create_waits_for_a_prune_and_is_then_seen(world: World, store: LayoutStore) -> None:
    """It reserves its name only when the prune is over; the next one keeps the image for the unfinished shed."""
    async with world.manager() as manager, asyncio.timeout(60):
        with pruning(world.paths.images):
            task = asyncio.create_task(create(manager, "dev", image="mine"))
            while world.resolved != ["mine"]:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            assert not world.instance("dev").exists()
        while not world.instance("dev").exists():
            await asyncio.sleep(0.01)
        store.untag("mine")
        assert prune(store, lambda: pins(world.paths), {}).garbage == ()
        await task
        assert prune(store, lambda: pins(world.paths), {}).garbage == ()
        await manager.delete("dev", force=True, progress=Progress())
        assert prune(store, lambda: pins(world.paths), {}).images == 1


async def test_pins_know_a_create_that_is_under_way(world: World, store: LayoutStore) -> None:
    """From the moment that its name is taken."""
    tag = store.tag("mine")
    assert tag is not None
    async with world.manager() as manager, asyncio.timeout(60):
        task = asyncio.create_task(create(manager, "dev", image="mine"))
        while not (found := pins(world.paths)):
            await asyncio.sleep(0.001)
        assert {pin.digest for pin in found} == {tag.digest}
        assert found[0].holder in ("shed 'dev'", "shed 'dev', which is being created")
        await task
