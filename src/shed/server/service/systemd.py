"""Asking and telling systemd, for the whole machine or for one user."""

from __future__ import annotations

import enum
import os
from pathlib import Path

from shed.errors import UnavailableError
from shed.run import Completed, run

UNIT = "shed-server.service"
_TIMEOUT = 90.0
"""Seconds that a call may take; starting the service is the longest."""


class Scope(enum.StrEnum):
    """Whose service it is."""

    SYSTEM = "system"
    USER = "user"

    @classmethod
    def mine(cls) -> Scope:
        """Return the scope that goes with who we are: the machine's for root."""
        return cls.SYSTEM if os.geteuid() == 0 else cls.USER

    @property
    def command(self) -> str:
        """How systemd is spoken to, for people."""
        return "systemctl" if self is Scope.SYSTEM else "systemctl --user"

    @property
    def folder(self) -> Path:
        """Where units that people install are."""
        if self is Scope.SYSTEM:
            return Path("/etc/systemd/system")
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd/user"


def find_unit(scope: Scope) -> Path | None:
    """Return the unit that is installed: what people installed goes before what a package brought."""
    places = [scope.folder, Path("/usr/lib/systemd") / scope]
    return next((folder / UNIT for folder in places if (folder / UNIT).exists()), None)


def runs(scope: Scope) -> bool:
    """Tell whether systemd runs here, for this scope."""
    try:
        said = systemctl(scope, "is-system-running", check=False).stdout.split()
    except UnavailableError:
        return False
    return bool(said) and said[0] not in {b"offline", b"unknown"}


def state(scope: Scope) -> str:
    """Return what systemd calls the state of the service: ``active``, ``inactive``, ``failed`` and so on."""
    return systemctl(scope, "is-active", UNIT, check=False).stdout.decode(errors="replace").strip() or "unknown"


def systemctl(scope: Scope, *words: str, check: bool = True) -> Completed:
    """Run ``systemctl`` for `scope`.

    Raises `UnavailableError` when it is not installed, `ToolError` when it fails.
    """
    extra = {"DBUS_SESSION_BUS_ADDRESS": bus} if (bus := os.environ.get("DBUS_SESSION_BUS_ADDRESS")) else None
    return run(["systemctl", f"--{scope}", *words], env=extra, check=check, timeout=_TIMEOUT)
