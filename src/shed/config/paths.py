"""Where things are on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from shed.config.rundir import run_dir


class Paths:
    """The folders of one server: everything durable is below `data`, sockets are below `run`.

    ``SHED_DATA_DIR`` and ``SHED_RUNTIME_DIR`` override the defaults: ``/var/lib/shed/qemu`` and ``/run/shed`` for root,
    ``~/.local/share/shed`` and ``$XDG_RUNTIME_DIR/shed`` for everybody else.
    """

    def __init__(self, data: Path | None = None, run: Path | None = None) -> None:
        self.data = data or _from_environment("SHED_DATA_DIR") or _default_data()
        self.run = run or Path(run_dir())
        self.images = self.data / "images"
        """OCI image layout with shed's own folders beside ``blobs/``."""
        self.instances = self.data / "instances"
        """One folder per shed: ``metadata.json``, ``console.log``, the backend's record."""
        self.uppers = self.data / "uppers"
        """``NAME/upper.ext4``: the writable layer of each shed, sparse."""
        self.snapshots = self.data / "snapshots"
        """One folder per snapshot."""
        self.templates = self.data / "templates"
        """Empty uppers to clone."""
        self.spares = self.data / "spares"
        """Machines that wait to become sheds."""
        self.logs = self.data / "logs"
        """Console logs kept from failed creates, and the server's own log."""
        self.socket = self.run / "shed.sock"
        """The local server's Unix socket, mode 0600 in a folder of mode 0700."""


def _from_environment(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(value).absolute() if value else None


def _default_data() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/shed/qemu")
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local/share") / "shed"
