"""A guest that reboots: its VM ends, and the shed is started again, but not for ever."""

from __future__ import annotations

import os
import signal

import pytest

from shed.progress import Progress
from shed.sheds import reboots
from shed.sheds.folders import Folders
from shed.sheds.manager import Manager
from support.servers.world import World, create
from support.waiting import until

SAYS = b"[   12.5] reboot: Restarting system\r\n"


async def end(world: World, manager: Manager, words: bytes) -> int:
    """Have the VM of the shed `dev` say `words` and end, as its guest can make it; return its process."""
    pid = int(manager.catalog.get("dev")["pid"])
    with (world.instance("dev") / "console.log").open("ab") as console:
        console.write(words)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: pid not in world.machines())
    return pid


async def test_a_guest_that_reboots_is_started_again(world: World) -> None:
    """By the kernel's last words; the shed has another VM, and is told as running."""
    async with world.manager() as manager:
        await create(manager, "dev")
        before = await end(world, manager, SAYS)
        await until(lambda: manager.catalog.get("dev").get("pid") not in {None, before})
        await until(lambda: manager.catalog.get("dev")["status"] == "running")


@pytest.mark.parametrize("words", [b"[   12.5] reboot: Power down\r\n", SAYS + b"and on\n", b""])
async def test_a_guest_that_ends_stays_down(world: World, words: bytes) -> None:
    """When it powered off, or its VM was killed, whatever it said before."""
    async with world.manager() as manager:
        await create(manager, "dev")
        await end(world, manager, words)
        await until(lambda: "shed.stopped" in [event.kind for event in manager.events.recent(lambda _: True)])
        assert manager.catalog.get("dev")["status"] == "stopped"
        assert not world.machines()


def test_a_guest_that_always_reboots_gets_a_rest(world: World) -> None:
    """So many times in so many seconds, and then again later; each shed has its own count."""
    now = [0.0]
    found = reboots.Reboots(lambda: now[0])
    for name in ("dev", "other"):
        folders = Folders(world.paths, name)
        folders.instance.mkdir(parents=True)
        folders.console.write_bytes(SAYS)
        ends = [found.judge(folders, always=False) for _ in range(reboots.MOST + 1)]
        assert [end.again for end in ends] == [0.0] * reboots.MOST + [None]
        assert (ends[0].message, "stays down" in ends[-1].message) == ("it reboots", True)
    now[0] += reboots.WITHIN
    assert found.judge(Folders(world.paths, "dev"), always=False).again == 0


async def test_a_shed_that_is_stopped_is_not_started(world: World) -> None:
    """A stop that the server was asked for is one, whatever the guest says at its end."""
    async with world.manager() as manager:
        await create(manager, "dev")
        with (world.instance("dev") / "console.log").open("ab") as console:
            console.write(SAYS)
        await manager.stop("dev", Progress())
        assert manager.catalog.get("dev")["status"] == "stopped"
