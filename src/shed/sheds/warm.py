"""Warm starts: restoring a shed's VM from a template instead of booting it, and the making of templates.

A template is one saved machine per shape (boot kit, processors, memory, shares); it serves every image and every shed,
because all that differs comes with *configure*.  It is made in the background after the first cold start of its shape.
A cold start is always right, so whatever goes wrong with a warm one ends in a cold one, unless it is the shed's own
fault; a template whose cold start then succeeds was to blame, and is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from shed.backends.base import Machine
from shed.backends.interface import Backend, Spares, Template
from shed.config.paths import Paths
from shed.config.server import Settings
from shed.errors import ConflictError, NotFoundError, ShedError
from shed.sheds.admission import Admission
from shed.sheds.pool import Pool, Spare
from shed.sheds.templates import blank, make
from shed.threads import in_thread

if TYPE_CHECKING:
    from shed.images.resolve import BootImage

log = logging.getLogger(__name__)
_SHEDS_OWN = frozenset(f"SHED-INIT-{number:02}" for number in (3, 4, 6, 7, 8, 9, 10))
"""How the guest calls what is wrong with the image, the upper or the folder that it was given; see
`shed.guest.configure.steps`.

Not those that say that a disk is missing: a saved machine that is no good may not see it.
"""
_MOST_BLAMED = 2
_PAUSE = 600.0
"""Seconds from one that could not be made to the next attempt."""
_SPACE_PAUSE, _NO_SPACE = 10.0, frozenset({"NO_SPACE", "DISK_RESERVE"})
"""The same where it was found out before anything was booted."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a VM can come from other than a boot."""

    way: str
    """``claim`` for a spare, ``restore`` for a template itself."""
    name: str
    template: Template
    """It, or the one that the spare was restored from."""
    start: Callable[[Machine], Awaitable[tuple[str, ...]]]
    """As `Backend.start`, from there."""


class WarmStart:
    """The templates of the `backend`, and a pool of spares.

    There are neither when the backend does not offer them, or `settings` say so.
    """

    def __init__(self, paths: Paths, backend: Backend, settings: Settings, admission: Admission) -> None:
        self._folder = paths.templates
        self._backend = backend
        self._templates = backend.capabilities.templates if settings.warm_start else None
        self._settings = settings
        self._admission = admission
        self._pool = Pool(paths, backend, settings, admission, self.want)
        self._making: dict[tuple[object, ...], asyncio.Task[None]] = {}
        """By shape."""
        self._turn = asyncio.Lock()
        """Of those that are making one."""
        self._failed: dict[tuple[object, ...], float] = {}
        """When the making of a shape failed: it costs a boot, and so is not tried again soon."""
        self._blamed: Counter[tuple[object, ...]] = Counter()

    async def open(self) -> None:
        """End the spares that a server before us was killed over, so that they hold nobody's disk."""
        await self._pool.open()

    async def prepare(self, resolve: Callable[[str], BootImage]) -> None:
        """Remove what a server before us was killed over.

        Then have spares made for the default image, if it is here.
        """
        settings = self._settings
        if self._templates is None:
            return
        await self._templates.sweep()
        if settings.warm_spares:
            with contextlib.suppress(NotFoundError):  # then the first shed shows what they are to be like
                image = await in_thread(resolve, settings.default_image)
                self._pool.like(blank(image, settings.default_cpus, settings.default_memory_mb, self._folder))

    async def close(self) -> None:
        """Give up what is being made, and end what waits."""
        for task in self._making.values():
            task.cancel()
        await asyncio.gather(*self._making.values(), self._pool.close(), return_exceptions=True)

    async def sources(self, machine: Machine) -> list[Source]:
        """Return what `machine` can come from, the quickest first."""
        if self._templates is None:
            return []
        self._pool.like(machine)
        try:
            template = await in_thread(self._templates.find, machine)
        except (ShedError, OSError) as error:
            log.warning("shed %s: templates cannot be used: %s", machine.name, error)
            return []
        if template is None:
            return []
        restore = partial(self._templates.restore, template=template)
        found = [Source("restore", template.path.name, template, restore)]
        spares = self._backend.capabilities.spares
        if spares is not None and (spare := self._pool.take(template)) is not None:
            found.insert(0, Source("claim", spare.machine.name, template, partial(_claim, spares, spare)))
        return found

    def starting(self) -> contextlib.AbstractContextManager[None]:
        """Leave the processor to a start meanwhile."""
        return self._pool.standing_back()

    async def is_sheds_own(self, error: ShedError, source: Source) -> bool:
        """Return whether `error` is due to the shed itself, not to the template `source`, so that any start would fail.

        The guest says so, and what it was restored from is what was saved: it is a guest that can be believed.
        """
        if self._templates is None or error.code not in _SHEDS_OWN:
            return False
        return await asyncio.to_thread(self._templates.is_whole, source.template)

    async def to_blame(self, template: Template, machine: Machine) -> None:
        """Drop a template that `machine` could not be restored from, although it boots.

        The second of a shape is the last.
        """
        if self._templates is None:
            return
        self._blamed[_shape(machine)] += 1
        log.warning("template %s could not be used and is dropped", template.path.name)
        try:
            await in_thread(self._templates.drop, template)
        except ShedError as error:
            log.warning("cannot remove template %s: %s", template.path.name, error)

    def want(self, machine: Machine) -> None:
        """Make a template for machines like `machine` in the background, unless that failed too often, or lately."""
        shape = _shape(machine)
        if self._templates is None or shape in self._making or self._blamed[shape] >= _MOST_BLAMED:
            return
        if time.monotonic() >= self._failed.get(shape, -_PAUSE) + _PAUSE:
            self._making[shape] = asyncio.create_task(
                self._make_quietly(machine, shape), name=f"template like {machine.name}"
            )

    async def _make_quietly(self, machine: Machine, shape: tuple[object, ...]) -> None:
        try:
            async with self._turn:
                await self._admission.check_idle("a template's VM", machine.memory_mb)
                await make(self._backend, machine, wait=self._settings.start_timeout)
        except ConflictError as error:
            log.info("no template made: %s", error)
        except ShedError as error:
            log.warning("no template for %d cpus and %d MB: %s", machine.cpus, machine.memory_mb, error)
            again = _SPACE_PAUSE if error.code in _NO_SPACE else _PAUSE
            self._failed[shape] = time.monotonic() + again - _PAUSE
        except Exception:
            log.exception("making a template failed")
            self._failed[shape] = time.monotonic()
        else:
            self._pool.look()
        finally:
            del self._making[shape]


async def _claim(spares: Spares, spare: Spare, machine: Machine) -> tuple[str, ...]:
    await spares.claim(spare.machine, machine)
    return ()


def _shape(machine: Machine) -> tuple[object, ...]:
    return (
        machine.cpus,
        machine.memory_mb,
        len(machine.shares),
        machine.mounts is None,
        machine.kernel,
        machine.initrd,
        machine.disks[-1].path,
    )
