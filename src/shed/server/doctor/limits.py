"""Checks of what bounds the VMs, and of what this host has left for more of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from shed.checks import Result, Status
from shed.errors import ShedError
from shed.server.doctor.host import Host
from shed.sheds import headroom
from shed.sheds.admission import Admission
from shed.sizes import format_size


def control_groups(host: Host) -> Iterable[Result]:
    """Each VM gets a control group, which bounds its memory and its processor time."""
    return host.diagnostics.control_groups()


def bounds(host: Host) -> Iterable[Result]:
    """A process in a group such as VMs have is ended when it takes more memory than it may."""
    return host.diagnostics.memory_bound()


def memory(host: Host) -> Iterator[Result]:
    """There is memory for one more shed of the default shape."""
    settings = host.settings
    admission = Admission(host.paths, host.backend, settings)
    load, left = admission.load(), headroom.memory()
    shown = (
        f"{load.running} sheds run; VMs were promised {format_size(load.promised_mb << 20)}, "
        f"{format_size(left.available)} are free"
    )
    try:
        admission.check_memory("a shed of the default size", settings.default_memory_mb, load)
    except ShedError as error:
        yield Result("memory", Status.WARN, f"{shown}; {error.message}", error.hint or "")
    else:
        yield Result("memory", Status.PASS, shown)


def pressure(host: Host) -> Iterator[Result]:
    """How long programs wait for this host, which keeps sheds from being started where a limit says so."""
    found = {name: headroom.pressure(name) for name in ("memory", "io", "cpu")}
    if all(value is None for value in found.values()):
        detail = "this kernel does not say how long programs wait (PSI), so no start is refused for that"
        yield Result("pressure", Status.WARN, detail, "boot with psi=1, if the kernel has it")
        return
    yield Result(
        "pressure",
        Status.PASS,
        ", ".join(f"{name} {value:.0f} %" for name, value in found.items() if value is not None),
    )
