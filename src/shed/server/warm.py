"""``shed-server warm``: templates made before anybody waits for a shed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from shed.backends.base import Machine, Share
from shed.backends.interface import Backend, Template
from shed.config.paths import Paths
from shed.config.server import Settings
from shed.errors import ConflictError, NotFoundError, ShedError, StorageError, UsageError
from shed.images.references import all_tags
from shed.images.resolve import BootImage
from shed.images.service import Images
from shed.names import MAX_CPUS, MAX_MEMORY_MB, MIN_MEMORY_MB
from shed.progress import Event, Progress
from shed.sheds import folders, workspace
from shed.sheds.templates import blank, make
from shed.sizes import parse_memory

if TYPE_CHECKING:
    from shed.oci.digest import Digest

_SHAPE = re.compile(r"([0-9]{1,9})x(.+)")
_BETWEEN_LOOKS = 0.5
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Processors and memory, in MiB, of a machine."""

    cpus: int
    memory_mb: int


def parse_shape(text: str) -> Shape:
    """Return the shape that ``2x2G`` or ``4x512`` (MiB) stands for.  Raises `UsageError`."""
    found = _SHAPE.fullmatch(text)
    if found is None:
        raise UsageError(f"{text!r} is not a shape", hint="write processors, an x and memory: 2x2G")
    shape = Shape(int(found[1]), parse_memory(found[2]))
    if not 1 <= shape.cpus <= MAX_CPUS or not MIN_MEMORY_MB <= shape.memory_mb <= MAX_MEMORY_MB:
        hint = f"1 to {MAX_CPUS} processors, and {MIN_MEMORY_MB}M to {MAX_MEMORY_MB}M of memory"
        raise UsageError(f"no shed can have the shape {text!r}", hint=hint)
    return shape


def warm(
    paths: Paths,
    settings: Settings,
    backend: Backend,
    shapes: Sequence[Shape],
    *,
    sink: Callable[[Event], None] | None = None,
) -> list[str]:
    """Make the templates of `shapes`, the default one when there is none, for each boot kit that the named images have.

    There are two of each: for sheds without a folder of the host, and with one.  Return the names of those that are
    there then.  Raises `NotFoundError` when there is no image, what making one raises, and `KeyboardInterrupt` when
    this process was told to end meanwhile; the machine that was being saved is gone then.
    """
    progress = Progress(sink) if sink else Progress()
    if not settings.warm_start:
        progress.warn("qemu.warm_start is false in the configuration, so the server does not use templates")
    folders.prepare(paths)
    _check_owner(paths.templates)
    kits = _kits(Images(paths.images, settings))
    if not kits:
        raise NotFoundError(
            "there is no image to boot", code="IMAGE_NOT_FOUND", hint="shed-server pull-images, or shed image build"
        )
    names = []
    with _telling(progress):
        for shape in shapes or [Shape(settings.default_cpus, settings.default_memory_mb)]:
            for image in kits:
                machine = blank(image, shape.cpus, shape.memory_mb, paths.templates)
                folder = Share(workspace.TAG, paths.templates, 0, 0)  # another takes its place
                for one, what in ((machine, ""), (replace(machine, shares=(folder,), mounts=()), ", with a folder")):
                    progress.phase("template", f"template for {shape.cpus} cpus and {shape.memory_mb} MB{what}")
                    try:
                        names.append(asyncio.run(_make(backend, one, settings.start_timeout, progress)).path.name)
                    except asyncio.CancelledError:
                        raise KeyboardInterrupt from None
    return list(dict.fromkeys(names))


@contextlib.contextmanager
def _telling(progress: Progress) -> Iterator[None]:
    """Have what would be warned of in a server's log be told among the progress meanwhile."""
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: progress.warn(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("shed").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("shed").removeHandler(handler)


def _check_owner(folder: Path) -> None:
    """Refuse to make, as root, what another user's server could neither use nor replace.  Raises `StorageError`."""
    owner = folder.stat().st_uid
    if owner != os.geteuid():
        raise StorageError(
            f"{folder} belongs to user {owner}, and not to {os.geteuid()}",
            code="NOT_OURS",
            hint=f"make templates as that user: sudo -u '#{owner}' shed-server warm",
        )


async def _make(backend: Backend, machine: Machine, wait: float, progress: Progress) -> Template:
    """As `make`, when nobody makes another one any more.

    What ends this process ends the machine that is being saved, too.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            loop.add_signal_handler(number, task.cancel)
    told = False
    while True:
        try:
            return await make(backend, machine, wait=wait)
        except ConflictError as error:
            if error.code != "LOCKED":
                raise
        if not told:
            progress.phase("wait", "waiting for the server, which makes another one")
            told = True
        await asyncio.sleep(_BETWEEN_LOOKS)


def _kits(images: Images) -> list[BootImage]:
    """Return one image for each boot kit; what cannot be booted is left out."""
    found: dict[tuple[object, ...], BootImage] = {}
    digests: dict[Digest, None] = dict.fromkeys(digest for _, digest in all_tags(images.store))
    for digest in digests:
        try:
            image = images.resolve(digest)
        except ShedError:
            continue
        found.setdefault((image.kernel, image.initrd, image.runtime), image)
    return list(found.values())
