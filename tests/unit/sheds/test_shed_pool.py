"""Machines that wait to become sheds: who gets one, who does not, and that none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from shed.api.making import CreateShed
from shed.backends.base import Disk, Machine
from shed.progress import Event, Progress, WarningEvent
from shed.sheds.admission import Admission
from shed.sheds.pool import Pool
from support.servers.world import World, create
from support.waiting import until


@pytest.fixture(autouse=True)
def saving(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend saves machines, and two are kept waiting."""
    monkeypatch.setattr("shed.sheds.pool._CALM_SECONDS", 0.05)
    world.backend.saved.possible = True
    world.with_settings(warm_spares=2, default_image="base")


def spares(world: World) -> list[int]:
    """Return the processes that wait to become sheds."""
    return [pid for folder in world.backend.spares.waiting if (pid := world.backend.pid(folder))]


async def filled(world: World) -> None:
    """Wait until all spares are there and what their predecessors left is gone."""
    await until(
        lambda: len(spares(world)) == 2 == len([path for path in world.paths.spares.iterdir() if path.is_dir()])
    )


async def test_a_create_and_a_start_take_a_machine_that_waits(world: World) -> None:
    """They are there before the first shed is; each that is taken is replaced; the server's end is theirs, and no
    shed's.
    """
    async with world.manager() as manager:
        await filled(world)
        waiting = spares(world)
        made = await create(manager, "a")
        assert (made["boot"], made["pid"] in waiting, "claim" in made["timings"]) == ("warm", True, True)
        await filled(world)
        await manager.stop("a", Progress())
        started = await manager.start("a", Progress())
        assert started["boot"] == "warm"
        assert [machine.name for machine in world.backend.spares.claimed] == ["a", "a"]
    assert world.machines() == [started["pid"]]
    assert [path.name for path in world.paths.spares.iterdir()] == [".lock"]


@pytest.mark.parametrize("wish", [{"cold": True}, {"cpus": 1}, {"memory_mb": 512}])
async def test_who_wants_something_else_takes_none(world: World, wish: dict[str, int]) -> None:
    """A boot, or a machine of another shape."""
    async with world.manager() as manager:
        await filled(world)
        assert (await create(manager, "a", **wish))["boot"] == "cold"
        assert not world.backend.spares.claimed


async def test_one_that_fails_or_has_died_costs_nothing_but_time(world: World) -> None:
    """A dead one is passed over; when a claim fails the shed is restored from the template, with a warning."""
    events: list[Event] = []
    async with world.manager() as manager:
        await filled(world)
        os.kill(spares(world)[0], signal.SIGKILL)
        assert "claim" in (await create(manager, "a"))["timings"]
        await filled(world)
        world.backend.faults.add("no-claim")
        made = await manager.create(CreateShed(name="b"), Progress(events.append))
        assert made["boot"] == "warm"
        assert made["timings"].keys() >= {"claim", "restore"}
    assert [event.message for event in events if isinstance(event, WarningEvent)] == [
        ("restoring the virtual machine failed, so it is restored anew: the VM that waits does not do what it is told")
    ]


async def test_those_of_a_template_that_is_gone_are_replaced(world: World) -> None:
    """What a new one is like, only its own know."""
    async with world.manager() as manager:
        await filled(world)
        before = spares(world)
        (template,) = world.backend.saved.kept.values()
        world.backend.saved.drop(template)
        assert (await create(manager, "a"))["pid"] not in before
        await until(lambda: len(spares(world)) == 2 and not set(spares(world)) & set(before))
        assert "claim" in (await create(manager, "b"))["timings"]


async def test_one_that_cannot_rehearse_is_none(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is ended, said so, and tried again after a while; creates are restored meanwhile."""
    monkeypatch.setattr("shed.sheds.pool._PAUSE", 0.1)
    world.backend.faults.add("forgets")
    async with world.manager() as manager:
        await until(lambda: "the rehearsal of a spare failed" in caplog.text)
        assert "restore" in (await create(manager, "a"))["timings"]
        world.backend.faults.clear()
        await filled(world)


def test_an_image_of_another_kit_does_not_end_them_at_once(world: World) -> None:
    """Only when such a one is asked for twice in a row."""
    admission = Admission(world.paths, world.backend, world.settings)
    pool = Pool(world.paths, world.backend, world.settings, admission, lambda _machine: None)
    machines = [Machine("m", 2, 2048, Path(name), Path("initrd"), (), Path("state")) for name in ("one", "two")]
    machines = [replace(machine, disks=(Disk(Path("runtime"), read_only=True),)) for machine in machines]
    wanted = []
    for which in (0, 1, 0, 1, 1, 0, 0):
        pool.like(machines[which])
        assert pool._like is not None
        wanted.append(machines.index(pool._like))
    assert wanted == [0, 0, 0, 0, 1, 1, 0]


async def test_two_servers_have_one_pool(world: World) -> None:
    """The second restores; it neither takes nor ends the first one's."""
    async with world.manager():
        await filled(world)
        before = spares(world)
        async with world.manager() as second:
            assert "restore" in (await create(second, "a"))["timings"]
        assert spares(world) == before


async def test_what_a_killed_server_left_is_ended(world: World, tmp_path: Path) -> None:
    """By the next, also when that one keeps no spares."""
    async with world.manager():
        await filled(world)
        left = world.paths.spares.rename(tmp_path / "left")  # its end does not see them
        world.paths.spares.mkdir()
    (left / ".lock").unlink()
    for path in left.iterdir():
        path.rename(world.paths.spares / path.name)
    assert len(world.machines()) == 2
    world.with_settings(warm_spares=0)
    async with world.manager():
        await until(lambda: [path.name for path in world.paths.spares.iterdir()] == [".lock"])
    assert not world.machines()


@pytest.mark.root
async def test_none_is_made_that_could_not_be_claimed(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A second name for a spare's sockets is needed, in the folder of a shed: that is within one mount."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", world.paths.spares], check=True)
    try:

        async def work() -> None:
            async with world.manager() as manager:
                assert (await create(manager, "a"))["boot"] == "cold"
                await until(lambda: world.backend.saved.kept)
                made = await create(manager, "b")
                assert "restore" in made["timings"]
                assert "claim" not in made["timings"]

        await work()
        assert (
            f"no spares are kept: {world.paths.spares} and {world.paths.instances} are different mounts" in caplog.text
        )
        assert [path.name for path in world.paths.spares.iterdir()] == [".lock"]
    finally:
        subprocess.run(["umount", world.paths.spares], check=True)
