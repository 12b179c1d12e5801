"""What the VM tests need to start VMs quickly, found out or made once and lent to the machines of tests.

That is whether KVM works here, which costs seconds where it does not, and templates of the default shape, with and
without shared folders. `SHED_TEST_WAY` says how the VMs of the VM tests come up: ``warm`` (restored from these, as
most VMs of users are), ``cold`` (booted), or ``both``, one after the other.
"""

from __future__ import annotations

import asyncio
import functools
import math
import os
import shutil
from pathlib import Path

from shed.backends.base import Disk, Machine, Share
from shed.backends.interface import Backend, Template
from shed.backends.qemu import QemuBackend, accel
from shed.backends.qemu.machines import PROGRAM
from shed.backends.qemu.templates import MEMORY, RECORD, STATE
from shed.config.paths import Paths
from shed.config.server import Settings
from shed.fsutil import locked
from shed.images.bootkit.kit import load_kit
from shed.sheds import folders, workspace
from shed.sheds.templates import make
from support.images.kit import CACHE, PACKAGE, built_kit, digest_of, prune

COLD, WARM, EITHER = "cold", "warm", "either"
VERDICT = "accel.json"
WAYS = {COLD: [COLD], WARM: [WARM], "both": [COLD, WARM]}[os.environ.get("SHED_TEST_WAY", WARM)]
CPUS, MEMORY_MB = Settings().default_cpus, Settings().default_memory_mb
_CODE = [PACKAGE / part for part in ("backends/qemu", "sheds/templates.py")]
"""What decides how one is made, beside what its name stands for."""


def lend(data: Path, way: str) -> None:
    """Put what VMs that come up this `way` need into the data folder `data`, which need not be there.

    Templates are links to files that all share, and that nobody may change.
    """
    data.mkdir(parents=True, exist_ok=True)
    if (_host() / VERDICT).exists():
        shutil.copy(_host() / VERDICT, data)
    for template in _made() if way == WARM else ():
        lent = data / "templates" / template.path.name
        lent.mkdir(parents=True)
        for name in (MEMORY, STATE):
            (lent / name).symlink_to(template.path / name)
        shutil.copy(template.path / RECORD, lent)  # its time is that of the last use


async def start(backend: Backend, machine: Machine, way: str) -> None:
    """Boot `machine`, or restore it from the template that was lent, as `way` says."""
    templates = backend.capabilities.templates
    assert templates is not None
    template = templates.find(machine)
    assert (template is not None) == (way == WARM)
    await (backend.start(machine) if template is None else templates.restore(machine, template))


@functools.cache
def _host() -> Path:
    """Return the folder with the verdict on KVM, if one had to be found."""
    program = shutil.which(PROGRAM)
    assert program is not None
    store = built_kit()
    accel.find(CACHE, program=Path(program), kernel=store.blob_path(load_kit(store).kernel))
    return CACHE


@functools.cache
def _made() -> list[Template]:
    """Return the templates; one that the backend finds in order is not made again."""
    store = built_kit()
    kit, root = load_kit(store), CACHE / f"templates-{digest_of(_CODE)}"
    paths = Paths(root, root / "run")
    kernel, initrd, runtime = (store.blob_path(digest) for digest in (kit.kernel, kit.initrd, kit.runtime))
    disks = (Disk(runtime, read_only=False), Disk(runtime, read_only=True), Disk(runtime, read_only=True))
    made = []
    with locked(CACHE / "templates.lock", limit=math.inf):
        folders.prepare(paths)
        lend(root, COLD)
        folder = (Share(workspace.TAG, root, 0, 0),)
        for shares, mounts in ((), None), (folder, None), (folder, ()), ((), ()):
            machine = Machine("template", CPUS, MEMORY_MB, kernel, initrd, disks, root, shares, mounts)
            made.append(asyncio.run(make(QemuBackend(paths), machine, wait=120)))
        os.utime(root)
        prune(CACHE, "templates-*")
    return made
