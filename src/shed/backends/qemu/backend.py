"""The QEMU backend, put together: its VMs, and what it offers beyond running them."""

from __future__ import annotations

from shed.backends.base import Network
from shed.backends.interface import Capabilities
from shed.backends.qemu.capabilities import QemuFullDisk, QemuGrowing, QemuSpares, QemuTemplates
from shed.backends.qemu.diagnostics import QemuDiagnostics
from shed.backends.qemu.machines import PROGRAM, Machines
from shed.backends.qemu.moments import QemuMoments
from shed.backends.qemu.mounting import QemuMounting
from shed.backends.qemu.templates import Limits, TemplateStore
from shed.config.paths import Paths
from shed.egress.network import netns


class QemuBackend(Machines):
    """VMs as QEMU processes; see `shed.backends.interface.Backend`.

    `program` is QEMU's name or path, `limits` how many templates are kept, and `control_groups` is ``auto``,
    ``require`` or ``never``.
    """

    name = "qemu"

    def __init__(
        self, paths: Paths, *, program: str | None = None, limits: Limits | None = None, control_groups: str = "auto"
    ) -> None:
        super().__init__(paths.data, program or PROGRAM, control_groups)
        templates = QemuTemplates(self, TemplateStore(paths.templates, limits or Limits()))
        self.capabilities = Capabilities(
            templates=templates,
            spares=QemuSpares(self, templates),
            full_disk=QemuFullDisk(),
            networks=self.networks,
            growing=QemuGrowing(),
            moments=QemuMoments(self),
            mounting=QemuMounting(),
            diagnostics=QemuDiagnostics(paths, self.program, control_groups),
        )

    @property
    def network(self) -> Network | None:
        """What every guest's network card is to be set up with; None where VMs have no network."""
        return None if self.networks.problem() else Network(netns.ADDRESS, netns.DNS, netns.DNS)
