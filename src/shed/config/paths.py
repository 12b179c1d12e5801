"""Where things are on this machine.  As every `shed exec` imports this file, it imports pathlib only when needed."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path


def run_dir() -> str:
    """Return the directory of sockets.

    It is ``SHED_RUNTIME_DIR`` if set, else ``/run/shed`` for root and ``$XDG_RUNTIME_DIR/shed`` for other users.
    """
    chosen = os.environ.get("SHED_RUNTIME_DIR")
    if chosen:
        return os.path.abspath(chosen)  # noqa: PTH100  no pathlib here
    user = os.geteuid()
    if user == 0:
        return "/run/shed"
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base:
        return f"{base}/shed"
    return f"/tmp/shed-{user}"  # noqa: S108  the server makes it with mode 0700, and both sides check who owns it


def server_socket() -> str:
    """Return the path of the local server's Unix socket."""
    return run_dir() + "/shed.sock"


class Paths:
    """The directories of one server: everything durable is below `data`, sockets are below `run`.

    ``SHED_DATA_DIR`` and ``SHED_RUNTIME_DIR`` override the defaults: ``/var/lib/shed/qemu`` and ``/run/shed`` for root,
    ``~/.local/share/shed`` and ``$XDG_RUNTIME_DIR/shed`` for other users.
    """

    def __init__(self, data: Path | None = None, run: Path | None = None) -> None:
        from pathlib import Path  # noqa: PLC0415  see above

        self.data = data or _data_dir()
        self.run = run or Path(run_dir())
        self.images = self.data / "images"
        """OCI image layout, with shed's own directories beside ``blobs/``."""
        self.instances = self.data / "instances"
        """One directory per shed: ``metadata.json``, ``console.log``, the backend's record."""
        self.uppers = self.data / "uppers"
        """``NAME/upper.ext4``: the writable layer of each shed, sparse."""
        self.snapshots = self.data / "snapshots"
        """One directory per snapshot."""
        self.prebuilds = self.data / "prebuilds"
        """``NAME.json``: how sheds are made ready ahead; ``NAME.log``: what the commands of the last one said."""
        self.templates = self.data / "templates"
        """Empty uppers to clone, and saved VMs to restore."""
        self.spares = self.data / "spares"
        """Restored VMs that wait to become sheds."""
        self.logs = self.data / "logs"
        """The server's own log, the audit log, and console logs kept from failed creates."""
        self.socket = self.run / "shed.sock"
        """The local server's Unix socket, mode 0600 in a directory of mode 0700."""


def _data_dir() -> Path:
    from pathlib import Path  # noqa: PLC0415  see above

    chosen = os.environ.get("SHED_DATA_DIR")
    if chosen:
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/shed/qemu")
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local/share") / "shed"
