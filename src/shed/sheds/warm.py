"""Warm starts: restoring a shed's VM from a template instead of booting it, and the making of templates.

A template is one saved machine per shape (boot kit, processors, memory, shares); it serves every image and every shed, because all that
differs comes with *configure*.  It is made in the background after the first cold start of its shape.  A cold start is always right, so
whatever goes wrong with a warm one ends in a cold one; a template whose cold start then succeeds was to blame, and is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from dataclasses import asdict

from shed.backends.base import Backend, Connection, Machine, Template
from shed.errors import ConflictError, ShedError
from shed.sheds.agent import control
from shed.sheds.threads import in_thread

log = logging.getLogger(__name__)
_REST_SECONDS = 60.0
_MOST_BLAMED = 2
_PAUSE = 600.0
"""Seconds from one that could not be made to the next attempt."""
_CALM_SECONDS = 2.5
"""Until the guest's kernel has done what it puts off, such as asking whether its IPv6 address is free: or every restored one does it."""


class WarmStart:
    """What `backend` is asked for templates through; when not `enabled` there are none.  `wait` is for the boot of a machine to save."""

    def __init__(self, backend: Backend, *, enabled: bool, wait: float) -> None:
        self._backend = backend
        self._enabled = enabled
        self._wait = wait
        self._making: dict[tuple[object, ...], asyncio.Task[None]] = {}
        """By shape."""
        self._failed: dict[tuple[object, ...], float] = {}
        """When the making of a shape failed: it costs a boot, and so is not tried again soon."""
        self._blamed: Counter[tuple[object, ...]] = Counter()

    async def open(self) -> None:
        """Remove what a server before us was killed over."""
        if self._enabled:
            await self._backend.sweep_templates()

    async def close(self) -> None:
        """Give up what is being made."""
        for task in self._making.values():
            task.cancel()
        await asyncio.gather(*self._making.values(), return_exceptions=True)

    async def find(self, machine: Machine) -> Template | None:
        """Return what `machine` can be restored from, if there is anything."""
        if not self._enabled:
            return None
        try:
            return await in_thread(self._backend.template, machine)
        except (ShedError, OSError) as error:
            log.warning("shed %s: templates cannot be used: %s", machine.name, error)
            return None

    async def to_blame(self, template: Template, machine: Machine) -> None:
        """Drop a template that `machine` could not be restored from, although it boots.  The second of a shape is the last."""
        self._blamed[_shape(machine)] += 1
        log.warning("template %s could not be used and is dropped", template.path.name)
        try:
            await in_thread(self._backend.drop_template, template)
        except ShedError as error:
            log.warning("cannot remove template %s: %s", template.path.name, error)

    def booted(self, machine: Machine) -> None:
        """Have a template made in the background for others like `machine`, which has just been booted."""
        shape = _shape(machine)
        if not self._enabled or shape in self._making or self._blamed[shape] >= _MOST_BLAMED:
            return
        if time.monotonic() >= self._failed.get(shape, -_PAUSE) + _PAUSE:
            self._making[shape] = asyncio.create_task(self._make_quietly(machine, shape), name=f"template like {machine.name}")

    async def _make_quietly(self, machine: Machine, shape: tuple[object, ...]) -> None:
        try:
            await make(self._backend, machine, wait=self._wait)
        except ConflictError as error:
            log.info("no template made: %s", error)
        except ShedError as error:
            log.warning("no template for %d cpus and %d MB: %s", machine.cpus, machine.memory_mb, error)
            self._failed[shape] = time.monotonic()
        except Exception:
            log.exception("making a template failed")
            self._failed[shape] = time.monotonic()
        finally:
            del self._making[shape]


async def make(backend: Backend, machine: Machine, *, wait: float) -> Template:
    """Make a template for machines like `machine`, unless there is one; `wait` in seconds.  Raises `ShedError`."""
    found = await in_thread(backend.template, machine)
    if found is not None:
        return found

    async def rest(connection: Connection) -> None:
        await control(connection, "rest", wait=_REST_SECONDS, network=asdict(backend.network))
        await asyncio.sleep(_CALM_SECONDS)

    return await backend.make_template(machine, rest, timeout=wait)


def _shape(machine: Machine) -> tuple[object, ...]:
    return (machine.cpus, machine.memory_mb, len(machine.shares), machine.kernel, machine.initrd, machine.disks[-1].path)
