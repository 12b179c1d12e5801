"""Checks of what bounds the VMs, and of what this host has left for more of them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

from shed.backends.qemu import QemuBackend, groups
from shed.backends.qemu.budget import Budget
from shed.errors import ShedError
from shed.server.doctor.result import Host, Result, Status
from shed.sheds import headroom
from shed.sheds.admission import Admission
from shed.sizes import format_size

_GREEDY = "import sys; sys.stdin.read(1); eaten = [b'x' * (1 << 20) for _ in range(256)]"
_TRIED = Budget(memory_bytes=64 << 20, swap_bytes=0, tasks=16, cpu_percent=100)
_SECONDS = 60.0


def control_groups(host: Host) -> Iterator[Result]:
    """Each VM gets a control group, which bounds its memory and its processor time."""
    wanted = host.settings.control_groups
    found = groups.find()
    if wanted == "never":
        detail = "limits.control_groups is never: a VM's memory and processor time are not bounded on the host"
        yield Result("control groups", Status.WARN, detail)
    elif found.way is groups.Way.NONE:
        status = Status.FAIL if wanted == "require" else Status.WARN
        yield Result("control groups", status, f"VMs have none: {found.reason}", found.hint)
    else:
        yield Result("control groups", Status.PASS, f"each VM gets one, by {found.way}")


def memory(host: Host) -> Iterator[Result]:
    """There is memory for one more shed of the default shape."""
    settings = host.settings
    backend = QemuBackend(host.paths, program=host.program)
    admission = Admission(host.paths, backend, settings)
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


def bounds(host: Host) -> Iterator[Result]:
    """A process in a group such as VMs have is ended when it takes more memory than it may."""
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", _GREEDY], stdin=subprocess.PIPE) as greedy:
        try:
            groups.find().place(greedy.pid, f"doctor-{greedy.pid}", _TRIED)
            greedy.communicate(b"g", timeout=_SECONDS)
        except ShedError as error:
            yield Result.of(
                "vm bounds", error, Status.FAIL if host.settings.control_groups == "require" else Status.WARN
            )
            return
        finally:
            greedy.kill()
    if greedy.returncode == -signal.SIGKILL:
        yield Result(
            "vm bounds", Status.PASS, f"a process that took more than its {_TRIED.memory_bytes >> 20} MiB was ended"
        )
    else:
        detail = f"a process took 256 MiB in a group of {_TRIED.memory_bytes >> 20} MiB"
        yield Result(
            "vm bounds", Status.FAIL, detail, "look at the kernel's log; this host's groups do not bound memory"
        )
