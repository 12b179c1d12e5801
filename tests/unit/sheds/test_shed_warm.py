"""Which way a shed comes up, and when a template is made: with a backend whose templates are names."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from shed.api.making import CreateShed
from shed.backends.interface import Capabilities, Template
from shed.errors import BackendError, StorageError, UnavailableError
from shed.progress import Event, PhaseEvent, Progress, WarningEvent
from shed.sheds import warm
from shed.sheds.manager import Manager
from shed.sheds.templates import make
from support.servers.world import World, create
from support.waiting import until


@pytest.fixture
def world(world: World) -> World:
    """A world whose backend saves machines."""
    world.backend.saved.possible = True
    return world


async def way(manager: Manager, name: str, **options: object) -> str:
    """Make a shed and return how it came up."""
    return str((await create(manager, name, **options))["boot"])


async def test_the_first_of_a_shape_is_cold_and_the_next_is_warm(world: World) -> None:
    """Each shape has its template; `cold` is obeyed, by create and by start."""
    async with world.manager() as manager:
        assert await way(manager, "a") == "cold"
        await until(lambda: len(world.backend.saved.kept) == 1)
        assert await way(manager, "b") == "warm"
        assert await way(manager, "c", cold=True) == "cold"
        assert await way(manager, "d", cpus=1) == "cold"
        await until(lambda: len(world.backend.saved.kept) == 2)
        await manager.stop("b", Progress())
        assert (await manager.start("b", Progress()))["boot"] == "warm"
        await manager.stop("b", Progress())
        assert (await manager.start("b", Progress(), cold=True))["boot"] == "cold"
        assert world.backend.saved.made == 2


async def test_a_backend_without_templates_boots_every_shed(world: World) -> None:
    """It offers nothing beyond what each must do, so nothing is asked of it, and a template cannot be had."""
    world.backend.capabilities = Capabilities()
    world.with_settings(warm_spares=2, default_image="base")
    async with world.manager() as manager:
        assert [await way(manager, name) for name in ("a", "b")] == ["cold"] * 2
        await manager.stop("a", Progress())
        assert (await manager.start("a", Progress()))["boot"] == "cold"
        with pytest.raises(UnavailableError, match="the backend fake cannot save VMs"):
            await make(world.backend, world.backend.started[0], wait=60)
    assert (world.backend.saved.tried, world.backend.spares.waiting) == (0, set())


async def test_shapes_that_are_asked_for_at_once_have_their_turns(world: World) -> None:
    """Each gets its template, one after the other."""
    async with world.manager() as manager:
        ways = await asyncio.gather(*(way(manager, f"with-{cpus}", cpus=cpus) for cpus in (1, 2, 3)))
        assert ways == ["cold"] * 3
        await until(lambda: len(world.backend.saved.kept) == 3)


async def test_none_is_made_or_used_when_the_configuration_says_so(world: World) -> None:
    """All starts are cold."""
    world.with_settings(warm_start=False)
    async with world.manager() as manager:
        assert await way(manager, "a") == "cold"
        assert await way(manager, "b") == "cold"
        assert world.backend.saved.made == 0


async def test_a_template_that_cannot_be_used_costs_a_cold_start_and_is_made_again(world: World) -> None:
    """The create succeeds, with a warning; the template that was to blame is gone, and there is another one."""
    async with world.manager() as manager:
        await way(manager, "a")
        await until(lambda: world.backend.saved.made == 1)
        world.backend.faults.add("no-restore")
        events: list[Event] = []
        assert (await manager.create(CreateShed(name="b"), Progress(events.append)))["boot"] == "cold"
        assert [event.message for event in events if isinstance(event, WarningEvent)] == [
            "restoring the virtual machine failed, so it is booted: the VM cannot be started"
        ]
        await until(lambda: world.backend.saved.made == 2)
        world.backend.faults.clear()
        assert await way(manager, "c") == "warm"


async def test_a_shape_that_can_be_saved_but_not_restored_is_given_up(world: World) -> None:
    """The second template that is no good is the last: from then on each start costs one boot, not two."""
    world.backend.faults.add("no-restore")
    async with world.manager() as manager:
        assert await way(manager, "a1") == "cold"
        await until(lambda: world.backend.saved.made == 1)
        assert await way(manager, "a2") == "cold"
        await until(lambda: world.backend.saved.made == 2)
        for number in range(3):
            assert await way(manager, f"b{number}") == "cold"
        assert (world.backend.saved.made, world.backend.saved.kept) == (2, {})


async def test_a_template_is_not_blamed_for_what_a_cold_start_cannot_do_either(world: World) -> None:
    """Both fail: the error is that of the cold start, and the template stays."""
    async with world.manager() as manager:
        await way(manager, "a")
        await until(lambda: world.backend.saved.made == 1)
        world.backend.faults.add("no-start")
        with pytest.raises(BackendError):
            await way(manager, "b")
        assert len(world.backend.saved.kept) == 1
        world.backend.faults.clear()
        assert await way(manager, "b") == "warm"


@pytest.mark.parametrize(
    ("spares", "faults", "ways"),
    [
        (1, ["no-root"], ["claim"]),
        (0, ["no-root"], ["restore"]),
        (1, ["no-root", "rotten"], ["claim", "restore", "vm"]),
    ],
)
async def test_what_is_wrong_with_a_shed_is_told_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch, spares: int, faults: list[str], ways: list[str]
) -> None:
    """A restored guest that says that its disks are bad is believed, if its memory is what was saved: one error, and no
    warning.
    """
    monkeypatch.setattr("shed.sheds.pool._CALM_SECONDS", 0.05)
    world.with_settings(warm_spares=spares, default_image="base")
    world.backend.faults.update(faults)
    template = Template(Path("template"), "mark")
    world.backend.saved.kept[world.settings.default_cpus, world.settings.default_memory_mb] = template
    events: list[Event] = []
    async with world.manager() as manager:
        await until(lambda: len(world.backend.spares.waiting) == spares)
        with pytest.raises(BackendError, match="mounting the root file system failed") as caught:
            await manager.create(CreateShed(name="a"), Progress(events.append))
    assert caught.value.code == "SHED-INIT-03"
    assert (caught.value.hint or "").startswith("the VM's console is kept in ")
    tried = [
        event.name for event in events if isinstance(event, PhaseEvent) and event.name in ("claim", "restore", "vm")
    ]
    warnings = [event.message for event in events if isinstance(event, WarningEvent)]
    assert (tried, len(warnings)) == (ways, len(ways) - 1)
    assert list(world.backend.saved.kept.values()) == [template]
    assert world.traces() == set()
    assert not world.machines()


async def test_a_shape_that_cannot_be_saved_is_tried_once(world: World) -> None:
    """A boot kit whose agent cannot rest would cost a boot after every start."""
    world.backend.saved.possible = False
    async with world.manager() as manager:
        for name in "abc":
            assert await way(manager, name) == "cold"
        assert world.backend.saved.tried == 1


async def test_a_template_that_there_was_no_space_for_is_tried_again_soon(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was booted for it, so the next start asks again; one that failed otherwise waits longer."""
    monkeypatch.setattr(warm, "_SPACE_PAUSE", 0.0)
    make, problems = world.backend.saved.make, [StorageError("full", code="NO_SPACE")]

    async def refused(*words: Any, **named: Any) -> Template:
        if problems:
            raise problems.pop()
        return await make(*words, **named)

    monkeypatch.setattr(world.backend.saved, "make", refused)
    async with world.manager() as manager:
        assert await way(manager, "a") == "cold"
        await until(lambda: not problems and not manager._warm._making)
        assert await way(manager, "b") == "cold"
        await until(lambda: len(world.backend.saved.kept) == 1)


async def test_a_template_that_is_being_made_is_not_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start boots."""

    async def never(*_words: Any, **_named: Any) -> Template:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(world.backend.saved, "make", never)
    async with world.manager() as manager:
        assert await way(manager, "a") == "cold"
        assert await way(manager, "b") == "cold"
