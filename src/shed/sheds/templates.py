"""Making what sheds are restored from."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from shed.backends.base import Connection, Disk, Machine
from shed.backends.interface import Backend, Template, Templates
from shed.errors import UnavailableError
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


def templates_of(backend: Backend) -> Templates:
    """Return the backend's templates.  Raises `UnavailableError` (NO_TEMPLATES) when it makes none."""
    templates = backend.capabilities.templates
    if templates is None:
        raise UnavailableError(f"the backend {backend.name} cannot save VMs", code="NO_TEMPLATES")
    return templates


async def make(backend: Backend, machine: Machine, *, wait: float) -> Template:
    """Make a template for machines like `machine`, unless there is one; `wait` in seconds.  Raises `ShedError`."""
    templates = templates_of(backend)
    found = await in_thread(templates.find, machine)
    if found is not None:
        return found

    async def settle(connection: Connection) -> None:
        await control(connection, "rest", wait=_REST_SECONDS, network=backend.network and asdict(backend.network))
        await asyncio.sleep(_CALM_SECONDS)

    return await templates.make(machine, settle, timeout=wait)
