"""Reads a Linux kernel package: the kernel, and the modules a shed needs."""

from __future__ import annotations

from dataclasses import dataclass

from shed.errors import DataError
from shed.images.bootkit.debs import Deb
from shed.images.bootkit.kernel import Kernel, load_kernel
from shed.images.bootkit.modules import (
    EARLY,
    LATE,
    ON_DEMAND,
    Module,
    alias_table,
    check_release,
    load_order,
    module_name,
    parse_module,
)

_PARTS = (
    "fs/",
    "lib/",
    "crypto/",
    "net/",
    "arch/",
    "drivers/block/",
    "drivers/net/",
    "drivers/char/",
    "drivers/virtio/",
)
"""Folders of a package's modules in which those that we want can be, with all that they depend on."""


@dataclass(frozen=True, slots=True)
class KernelPackage:
    """A kernel and its modules."""

    kernel: Kernel
    early: list[Module]
    """Modules to load before the agent starts, in this order."""
    late: list[Module]
    """Modules that the agent loads, in this order."""
    on_demand: list[Module]
    """Modules that the kernel asks for when they are used, and what those need."""
    aliases: str
    """By which names it asks for them, see `alias_table`."""


def read_kernel_package(deb: Deb) -> KernelPackage:
    """Return what is in the package `deb`.  Raises `DataError` when it lacks something that a shed needs."""
    release = deb.package.name.removeprefix("linux-image-")
    top = f"usr/lib/modules/{release}/"
    parts = tuple(f"{top}kernel/{part}" for part in _PARTS)
    alone = {f"boot/vmlinuz-{release}", f"boot/config-{release}", f"{top}modules.builtin"}
    files = {
        path: content
        for path, content in deb.members(lambda path: path in alone or path.startswith(parts))
        if isinstance(content, bytes)
    }
    if missing := sorted(alone - set(files)):
        raise DataError(f"{deb.package.name} has no {missing[0]}")
    builtin = frozenset(module_name(line) for line in files[f"{top}modules.builtin"].decode().split())
    paths = {module_name(path): path for path in files if ".ko" in path}

    def find(name: str) -> Module | None:
        return parse_module(paths[name], files[paths[name]]) if name in paths else None

    early = load_order(EARLY, find, builtin=builtin)
    late = load_order(LATE, find, builtin=builtin, loaded=early)
    on_demand = load_order(ON_DEMAND, find, builtin=builtin, loaded=[*early, *late])
    check_release([*early, *late, *on_demand], release)
    aliases = alias_table([module.name for module in on_demand], find, builtin=builtin, loaded=[*early, *late])
    kernel = load_kernel(
        release=release, bzimage=files[f"boot/vmlinuz-{release}"], config=files[f"boot/config-{release}"].decode()
    )
    return KernelPackage(kernel, early, late, on_demand, aliases)
