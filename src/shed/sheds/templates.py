"""Making what sheds are restored from."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from shed.backends.base import Backend, Connection, Disk, Machine, Template
from shed.sheds.agent import control
from shed.threads import in_thread

if TYPE_CHECKING:
    from shed.images.resolve import BootImage

_REST_SECONDS = 60.0
_CALM_SECONDS = 2.5
"""Until the guest's kernel has done what it puts off, such as asking whether its IPv6 address is free: or every
restored one does it.
"""


def blank(image: BootImage, cpus: int, memory_mb: int, folder: Path) -> Machine:
    """Return a machine of no shed's, for a template: its disks only say of which kind they are."""
    disks = (
        Disk(image.runtime, read_only=False),
        Disk(image.root, read_only=True),
        Disk(image.runtime, read_only=True),
    )
    return Machine("blank", cpus, memory_mb, image.kernel, image.initrd, disks, folder)


async def make(backend: Backend, machine: Machine, *, wait: float) -> Template:
    """Make a template for machines like `machine`, unless there is one; `wait` in seconds.  Raises `ShedError`."""
    found = await in_thread(backend.template, machine)
    if found is not None:
        return found

    async def rest(connection: Connection) -> None:
        await control(connection, "rest", wait=_REST_SECONDS, network=asdict(backend.network))
        await asyncio.sleep(_CALM_SECONDS)

    return await backend.make_template(machine, rest, timeout=wait)
