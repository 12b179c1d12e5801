"""What the doctor examines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from shed.backends.factory import make_backend
from shed.backends.interface import Backend, Diagnostics
from shed.checks import Result
from shed.config.paths import Paths
from shed.config.server import Settings, load_settings
from shed.errors import ShedError, UnavailableError
from shed.images.service import Images
from shed.oci.store import LayoutStore


@dataclass(frozen=True, slots=True)
class Host:
    """The directories, the configuration and the VMM's name or path.

    None means the configuration that a server would find, and the usual VMM.
    """

    paths: Paths
    config: Path | None = None
    program: str | None = None

    @property
    def settings(self) -> Settings:
        """The configuration; the defaults while it cannot be used, which its own check tells."""
        try:
            return load_settings(self.config)
        except ShedError:
            return Settings()

    @property
    def backend(self) -> Backend:
        """What runs VMs here."""
        return make_backend(self.paths, self.settings, program=self.program)

    @property
    def diagnostics(self) -> Diagnostics:
        """What the backend can say of this host.  Raises `UnavailableError` when it says nothing."""
        backend = self.backend
        if backend.capabilities.diagnostics is None:
            raise UnavailableError(f"the backend {backend.name} does not examine this host", code="NO_DIAGNOSTICS")
        return backend.capabilities.diagnostics

    @property
    def store(self) -> LayoutStore:
        """The image store."""
        return Images(self.paths.images).store


Check = Callable[[Host], Iterable[Result]]
"""Looks at one thing.  What it raises becomes a row, too: a `ShedError` as it is, anything else as a bug."""
