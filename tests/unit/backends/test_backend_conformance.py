"""The fake backend does what every backend has to do, so what is tested with it holds for others."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from shed.backends.base import Disk, Machine
from shed.backends.interface import Backend, Capabilities
from support.servers.fake_backend import FakeBackend
from support.vms.conformance import EVERY, Bench, Try


@pytest.mark.parametrize("offers", ["all", "nothing"])
@pytest.mark.parametrize("check", EVERY, ids=lambda check: check.__name__)
def test_the_fake_backend(tmp_path: Path, check: Try, offers: str) -> None:
    """With all that it offers, and with nothing beyond what each backend must do."""

    def backend() -> Backend:
        made = FakeBackend()
        if offers == "nothing":
            made.capabilities = Capabilities()
        return made

    def machine(name: str) -> Machine:
        folder, disk = tmp_path / name, tmp_path / f"{name}.disk"
        folder.mkdir()
        disk.touch()
        return Machine(name, 1, 128, disk, disk, (Disk(disk, read_only=False),), folder)

    tried = backend()

    async def work() -> None:
        try:
            await check(Bench(tried, backend, machine))
        finally:
            for folder in tmp_path.iterdir():
                if folder.is_dir():
                    await tried.kill(folder)

    asyncio.run(work())
