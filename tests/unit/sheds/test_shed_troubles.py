"""What goes wrong in sheds, told by what their host sees: their consoles and the files of their disks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.config.paths import Paths
from shed.sheds.events import Events, wanted
from shed.sheds.folders import Folders
from shed.sheds.metadata import Record
from shed.sheds.troubles import Troubles

KILL = "[  129.403639] {what}ut of memory: Killed process 167 ({name}) total-vm:443756kB, anon-rss:440704kB\n"
SIZE = 4 << 20


class Host:
    """One shed, as files; a clock that stands still."""

    def __init__(self, root: Path) -> None:
        paths = Paths(root / "data", root / "run")
        self.folders = Folders(paths, "dev")
        self.folders.instance.mkdir(parents=True)
        self.folders.upper.parent.mkdir(parents=True)
        self.console = self.folders.instance / "console.log"
        self.begin()
        self.fill(0)
        self.now = 1000.0
        self.events = Events()
        self.troubles = Troubles(paths, self.running, clock=lambda: self.now)

    def running(self) -> Iterator[tuple[Record, Path]]:
        """Yield the shed."""
        yield Record("dev", "", "base", "", "fake", 1, 512, SIZE), self.folders.instance

    def begin(self) -> None:
        """Put a new log in the place of the last one, as a start does."""
        other = self.console.with_suffix(".new")
        other.write_bytes(b"")
        other.replace(self.console)

    def say(self, text: str) -> None:
        """Have the console say something."""
        with self.console.open("a") as file:
            file.write(text)

    def fill(self, part: float) -> None:
        """Have so much of the disk be taken up."""
        with self.folders.upper.open("wb") as file:
            file.truncate(SIZE)
            os.posix_fallocate(file.fileno(), 0, max(1, int(SIZE * part)))

    async def look(self) -> list[tuple[str, str]]:
        """Return what is told of after one more look."""
        before = len(self.events.recent(wanted(shed=None, kinds=None)))
        await self.troubles.look(self.events)
        return [(event.kind, event.message) for event in self.events.recent(wanted(shed=None, kinds=None))[before:]]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host with one shed."""
    return Host(tmp_path)


async def test_a_program_that_was_ended(host: Host) -> None:
    """Is told once, also when its line came in two parts; those that follow at once are counted; a start forgets."""
    host.say(KILL.format(what="O", name="before"))
    assert await host.look() == []
    line = KILL.format(what="Memory cgroup o", name="make")
    host.say(line[:50])
    assert await host.look() == []
    host.say(line[50:] + "more\n")
    assert await host.look() == [("shed.out-of-memory", "out of memory: its kernel ended make")]
    assert "give it more: shed update dev --memory SIZE" in host.troubles.of("dev")
    host.say(KILL.format(what="O", name="cc1"))
    assert await host.look() == []
    assert "ended cc1 (2 such ends since its start)" in host.troubles.of("dev")
    host.now += 100
    assert await host.look() == []
    host.say(KILL.format(what="O", name="ld"))
    assert len(await host.look()) == 1
    host.now += 4000
    assert host.troubles.of("dev") == ""
    host.begin()
    host.say(KILL.format(what="O", name="new"))
    assert await host.look() == [("shed.out-of-memory", "out of memory: its kernel ended new")]


async def test_a_hostile_console_is_bounded(host: Host) -> None:
    """However much it says, one event comes of it, which is short and has nothing that a terminal obeys."""
    await host.look()
    host.say("".join(KILL.format(what="O", name=f"\x1b[2J{number}") for number in range(20000)))
    ((kind, message),) = await host.look()
    assert kind == "shed.out-of-memory"
    assert "\x1b" not in message
    assert len(message) < 200
    host.say(KILL.format(what="O", name="x" * 5000) + "Killed process 1 ()\n" + "ut of memory: Killed process " * 1000)
    host.now += 100
    assert await host.look() == []


async def test_a_full_disk(host: Host) -> None:
    """Is told once, and again only after there was room."""
    await host.look()
    host.fill(0.95)
    assert [kind for kind, _ in await host.look()] == ["shed.disk-full"]
    assert "--upper-size" in host.troubles.of("dev")
    host.fill(0.92)
    assert await host.look() == []
    assert "--upper-size" in host.troubles.of("dev")
    host.fill(0.5)
    assert await host.look() == []
    assert host.troubles.of("dev") == ""
    host.fill(0.95)
    assert [kind for kind, _ in await host.look()] == ["shed.disk-full"]
    host.console.unlink()
    assert await host.look() == []
