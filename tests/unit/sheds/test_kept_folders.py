"""The folders of a workspace, kept in a guest: a real agent, the real program in it, and a real folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from shed.backends import mux
from shed.backends.base import Connection
from shed.errors import NotFoundError
from shed.sheds import foldernames, names
from support.guests.agent import SOURCE, Agent


class Guest:
    """An agent whose "guest" has the folder where the host has it."""

    def __init__(self, agent: Agent, folder: Path) -> None:
        self.agent = agent
        self.folder = folder
        self.present: dict[str, Connection] = {}

    def held(self) -> set[str]:
        """Return the folders that a program of the agent's holds, below the shared one."""
        found = set()
        for child in Path(f"/proc/{self.agent.process.pid}/task/{self.agent.process.pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                for link in Path(f"/proc/{child}/fd").iterdir():
                    path = link.readlink()
                    if path.is_relative_to(self.folder) and path != self.folder:
                        found.add(str(path.relative_to(self.folder)))
        return found

    async def until_held(self, *paths: str) -> None:
        """Wait until these are held, and no others."""
        await until(lambda: self.held() == set(paths))


async def until(true: Callable[[], bool]) -> None:
    """Wait."""
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def kept(guest: Guest) -> AsyncIterator[None]:
    """Keep its folders."""
    link = await mux.connect(guest.agent.address)
    guest.present["dev"] = link
    task = asyncio.create_task(names.keep_names(lambda: guest.present, lambda _: str(guest.folder)))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await link.close()


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guest]:
    folder = tmp_path / "shared"
    (folder / "a/b").mkdir(parents=True)
    program = "import sys; sys.path.insert(0, sys.argv.pop(1)); from shed.guest.names import main; main(sys.argv[1:])"
    command = [sys.executable, "-I", "-S", "-c", program, str(SOURCE)]
    monkeypatch.setattr(names, "helper", lambda module, *words: [*command, str(folder)])
    monkeypatch.setattr(names, "_LOOK", 0.01)
    monkeypatch.setattr(foldernames, "_SETTLED", 0.01)
    (tmp_path / "agent").mkdir()
    agent = Agent(tmp_path / "agent", {"user": str(os.getuid())})
    try:
        yield Guest(agent, folder)
    finally:
        agent.close()


@pytest.mark.root
async def test_folders_are_kept_and_let_go(guest: Guest) -> None:
    """While the guest is there; the program ends with its link, and another link begins anew."""
    async with kept(guest):
        await guest.until_held("a", "a/b")
        (guest.folder / "a/b").rename(guest.folder / "c")
        await guest.until_held("a", "c")
        link = guest.present.pop("dev")
        await guest.until_held()
        guest.present["dev"] = link
        await guest.until_held("a", "c")
    await guest.until_held()


@pytest.mark.root
async def test_more_than_a_window_of_them(guest: Guest) -> None:
    """What is told waits for the program to take it."""
    for number in range(1500):
        (guest.folder / f"{'long' * 50}{number}").mkdir()
    async with kept(guest):
        await until(lambda: len(guest.held()) == 1502)
        (guest.folder / "last").mkdir()
        await until(lambda: "last" in guest.held())


@pytest.mark.root
@pytest.mark.parametrize("trouble", ["program", "folder", "record"])
async def test_what_cannot_be_kept(guest: Guest, trouble: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest without the program, a folder that is gone, a shed that is: logged once, and left alone."""
    told: list[str] = []
    monkeypatch.setattr(names.log, "info", lambda text, *words: told.append(text % words))
    if trouble == "program":
        monkeypatch.setattr(names, "helper", lambda module, *words: ["/nowhere"])
    elif trouble == "folder":
        guest.folder.rename(guest.folder.with_name("gone"))

    def folder(_: str) -> str:
        if trouble == "record":
            raise NotFoundError("no such shed", hint="")
        return str(guest.folder)

    link = await mux.connect(guest.agent.address)
    looks: list[int] = []

    def present() -> dict[str, Connection]:
        looks.append(len(told))
        return {"dev": link}

    task = asyncio.create_task(names.keep_names(present, folder))
    await until(lambda: bool(told))
    await until(lambda: sum(map(bool, looks)) > 3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await link.close()
    assert len(told) == 1
    assert {"program": "/nowhere", "folder": "No such file", "record": "no such shed"}[trouble] in told[0]
