"""A server that is killed at a step: before it changes something on the disk, starts a process, or hears what a guest
answers.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from shed.backends.interface import Template
from shed.sheds.manager import Manager
from support.servers.fake_backend import FakeStream
from support.servers.world import World
from support.waiting import until

Work = Callable[[Manager], Awaitable[object]]
_STEPS = {f"os.{name}" for name in ("rename", "link", "remove", "mkdir", "rmdir", "truncate", "chmod", "posix_spawn")}
"""Python's audit events (docs.python.org, "Audit events table"); files that are opened to be written come to these."""
_STEPS |= {"socket.bind", "socket.connect"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def killed_at(step: int, world: World, work: Work, *, warm: bool = True, spares: int = 0) -> bool:
    """Have a server do `work` and kill it before its `step`th step, or when it is done; return whether it came so far.

    With `warm` it has a template.  It has its `spares` before it begins to count, without any it counts from its own
    start.
    """
    process = multiprocessing.get_context("fork").Process(
        target=_serve, args=(step, world.paths.data.parent, work, warm, spares)
    )
    process.start()
    process.join()
    assert process.exitcode in {0, -signal.SIGKILL}
    return process.exitcode == 0


def _serve(step: int, root: Path, work: Work, warm: bool, spares: int) -> None:
    world = World(root)
    world.with_settings(warm_start=warm, warm_spares=spares, default_image="base")
    world.backend.saved.kept[world.settings.default_cpus, world.settings.default_memory_mb] = Template(
        Path("template"), "mark"
    )

    async def serve() -> None:
        if not spares:
            _die_before(step, world.paths.data)
        async with world.manager() as manager:
            if spares:
                await until(lambda: len(world.backend.spares.waiting) == spares)
                _die_before(step, world.paths.data)
            await work(manager)
            os._exit(0)

    asyncio.run(serve())


def _die_before(step: int, data: Path) -> None:
    """Have this process kill itself before its `step`th step from now on, in whichever thread."""
    steps, read = itertools.count(1), FakeStream.read

    def count() -> None:
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _STEPS or (event == "open" and _makes(data, *arguments)):
            count()

    async def hear(stream: FakeStream, limit: int = 65536) -> bytes:
        count()
        return await read(stream, limit)

    sys.addaudithook(hook)
    FakeStream.read = hear  # type: ignore[method-assign, assignment]


def _makes(data: Path, path: object, _mode: object, flags: int) -> bool:
    return bool(flags & _WRITES) and str(path).startswith(f"{data}/") and not str(path).endswith(".lock")
