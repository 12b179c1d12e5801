"""Sheds made with ``--restart always``: they start again when their VM has ended, unless somebody wanted that."""

import json
import os
import signal

import pytest

from shed.api.making import UpdateShed
from shed.progress import Progress
from shed.sheds import metadata, reboots, revivals
from shed.sheds.folders import Folders
from shed.sheds.manager import Manager
from support.servers.world import World, create
from support.waiting import until

POWERS_OFF = b"[   12.5] reboot: Power down\r\n"


async def killed(world: World, name: str) -> None:
    """Kill the VM of a shed, as a host that runs out of memory does."""
    pid = json.loads((world.instance(name) / "vm.json").read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    await until(lambda: pid not in world.machines())


def running(manager: Manager) -> list[str]:
    """Return the names of the sheds that run."""
    return [shed["name"] for shed in manager.catalog.list()[0] if shed["status"] == "running"]


async def test_a_vm_that_was_killed_comes_back(world: World) -> None:
    """After a moment; what happened is told.  One that is not to be restarted stays down."""
    async with world.manager() as manager:
        await create(manager, "no")
        assert (await create(manager, "dev", restart="always"))["restart"] == "always"
        before = manager.catalog.get("dev")["pid"]
        for name in ("no", "dev"):
            await killed(world, name)
        await until(lambda: "shed.started" in [one.kind for one in manager.events.recent(lambda _: True)])
        assert running(manager) == ["dev"]
        assert manager.catalog.get("dev")["pid"] != before
        said = [(one.kind, one.message) for one in manager.events.recent(lambda one: one.shed == "dev")]
        assert said == [
            ("shed.created", ""),
            ("shed.stopped", "its virtual machine has ended; it is started again"),
            ("shed.started", ""),
        ]


async def test_sheds_come_back_after_a_boot_of_the_host(world: World) -> None:
    """Those that ran, and are to.  In place of a boot of this machine, the records of their VMs are made to be of
    another boot, and the VMs are killed.
    """
    async with world.manager() as manager:
        for name in ("ran", "ran-too", "and-i", "stopped", "off"):
            await create(manager, name, restart="always")
        await create(manager, "no")
        await create(manager, "over", restart="always", ttl=3600)
        await manager.stop("stopped", Progress())
    for name in ("ran", "ran-too", "and-i", "off", "no", "over"):
        await killed(world, name)
        path = world.instance(name) / "vm.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "boot_id": "of-the-boot-before"}))
    with (world.instance("off") / "console.log").open("ab") as console:
        console.write(POWERS_OFF)
    path = world.instance("over") / metadata.METADATA
    path.write_text(json.dumps({**json.loads(path.read_text()), "expires_at": metadata.at(1)}))
    async with world.manager() as manager:
        await until(lambda: running(manager) == ["and-i", "ran", "ran-too"])
        await until(lambda: not world.instance("over").exists())
        assert len(world.machines()) == 3


async def test_a_guest_that_powers_itself_off_stays_off(world: World) -> None:
    """By the kernel's last words: it was somebody's wish."""
    async with world.manager() as manager:
        await create(manager, "dev", restart="always")
        with (world.instance("dev") / "console.log").open("ab") as console:
            console.write(POWERS_OFF)
        await killed(world, "dev")
        await until(lambda: "shed.stopped" in [one.kind for one in manager.events.recent(lambda _: True)])
        assert not world.machines()
        await manager.start("dev", Progress())


async def test_who_stops_it_wins(world: World) -> None:
    """Also while it waits to be started again."""
    async with world.manager() as manager:
        await create(manager, "dev", restart="always")
        await killed(world, "dev")
        await until(lambda: "shed.stopped" in [one.kind for one in manager.events.recent(lambda _: True)])
        await manager.stop("dev", Progress())
        await manager._revivals._revive("dev", 0)
        assert not world.machines()


async def test_a_start_that_fails_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What it needs may come late; it gives up in the end, and the next server tries again."""
    monkeypatch.setattr(revivals, "TRIES", (0.0, 0.01, 0.01))
    async with world.manager() as manager:
        await create(manager, "dev", restart="always")
    await killed(world, "dev")
    world.backend.faults.add("no-start")
    async with world.manager() as manager:
        await until(lambda: "could not be started again (3 of 3)" in caplog.text)
        assert running(manager) == []
    async with world.manager() as manager:
        await until(lambda: caplog.text.count("could not be started again (1 of 3)") == 2)
        world.backend.faults.clear()
        await until(lambda: running(manager) == ["dev"])


def test_one_that_always_ends_gets_a_rest(world: World) -> None:
    """Longer and longer, and after so many times in so many seconds it stays down; later it has its turns again."""
    now = [0.0]
    found = reboots.Reboots(lambda: now[0])
    folders = Folders(world.paths, "dev")
    ends = [found.judge(folders, always=True) for _ in range(reboots.MOST + 1)]
    assert [end.again for end in ends] == [1.0, 2.0, 4.0, 8.0, 16.0, None]
    assert "stays down" in ends[-1].message
    assert found.judge(folders, always=False) == reboots.ENDED
    now[0] += reboots.WITHIN
    assert found.judge(folders, always=True).again == 1.0


async def test_the_policy_is_changed(world: World) -> None:
    """It is kept with the shed; a record without says no, as those of earlier versions."""
    async with world.manager() as manager:
        await create(manager, "dev")
        assert metadata.load(world.instance("dev")).restart == "no"
        assert (await manager.update("dev", UpdateShed(restart="always"), Progress()))["restart"] == "always"
        assert (await manager.update("dev", UpdateShed(cpus=1), Progress()))["restart"] == "always"
        assert "restart" not in await manager.update("dev", UpdateShed(restart="no"), Progress())
    path = world.instance("dev") / metadata.METADATA
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "restart": "sometimes"}))
    with pytest.raises(metadata.DamagedError, match="restart is 'sometimes'"):
        metadata.load(path.parent)
    path.write_text(json.dumps({key: value for key, value in values.items() if key != "restart"}))
    assert metadata.load(path.parent).restart == "no"
