"""The one place that chooses a backend, and the only one outside a VMM's own folder that knows the VMMs by name."""

from __future__ import annotations

from shed.backends.interface import Backend
from shed.config.paths import Paths
from shed.config.server import Settings


def make_backend(paths: Paths, settings: Settings, *, program: str | None = None) -> Backend:
    """Return the backend that runs this host's VMs, as `settings` want it.

    `program` is the VMM's name or path; None: the backend's own choice.
    """
    from shed.backends.qemu import Limits, QemuBackend  # noqa: PLC0415  only the backend that is used is imported

    return QemuBackend(
        paths,
        program=program,
        limits=Limits(
            settings.warm_templates,
            settings.warm_templates_size,
            usual=(settings.default_cpus, settings.default_memory_mb),
        ),
        control_groups=settings.control_groups,
    )
