"""``shed-server install | uninstall``: the server as a service that starts with the machine, or with its user.

Both can be called again at any time.  Nothing is stopped or written before the configuration is known to be valid, and
no data is removed.
"""

from __future__ import annotations

import os
import pwd
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from shed.config.paths import Paths
from shed.config.server import find_settings, load_settings, search_paths
from shed.errors import UnavailableError, UsageError
from shed.fsutil import atomic_write, fsync_dir, storage_errors
from shed.server import local
from shed.server.service.systemd import UNIT, Scope, runs, state, systemctl
from shed.server.service.unit import Unit

_STOP_TIMEOUT = 30.0
_PASSED = ("SHED_DATA_DIR", "SHED_RUNTIME_DIR", "SHED_ACCEL", "SHED_DEBIAN_MIRROR", "SHED_DEBIAN_CHECK_VALID_UNTIL")
"""What is set when the service is installed holds for the service, too: the clients that see it look for the server
there.
"""


def install(scope: Scope, *, config: Path | None = None, run_as: str | None = None) -> Iterator[str]:
    """Install the service or bring it up to date, start it, and yield a sentence for each thing done.

    It is restarted when something about it changed.  Raises `ConfigError` for a configuration that it would not start
    with, `UsageError`, `StorageError`, and `ToolError` when systemd refuses.
    """
    home = _home(run_as, scope)
    found = config.absolute() if config else find_settings(search_paths(home)[1:])
    if found:
        load_settings(found)
    command = [*_program(), "serve", *(["--config", str(found)] if config else [])]
    environment = {name: os.environ[name] for name in _PASSED if os.environ.get(name)}
    if run_as:
        environment = {"SHED_DATA_DIR": "/var/lib/shed/qemu", "SHED_RUNTIME_DIR": "/run/shed"} | environment
    changed = _write(scope.folder / UNIT, Unit(scope, command, run_as, environment).text())
    yield f"wrote {scope.folder / UNIT}" if changed else f"{scope.folder / UNIT} is as it should be"
    if not runs(scope):
        yield (
            "systemd does not run here, so nothing was started: run `shed-server serve`, or let `shed` start the server"
        )
        return
    systemctl(scope, "daemon-reload")
    if state(scope) == "active":
        systemctl(scope, "enable", UNIT)
        if changed:
            systemctl(scope, "restart", UNIT)
        yield "restarted the service; sheds keep running" if changed else "the service is active"
    else:
        yield from _stop_other(Paths().socket)
        systemctl(scope, "enable", "--now", UNIT)
        yield "started the service"
    if scope is Scope.USER:
        yield "to have it run while you are not logged in: loginctl enable-linger"


def uninstall(scope: Scope) -> Iterator[str]:
    """Stop the service and remove its unit; yield a sentence for each thing done.

    Sheds keep running, and all data stays.
    """
    unit = scope.folder / UNIT
    if not unit.exists():
        yield f"there is no {unit}"
        return
    if runs(scope):
        systemctl(scope, "disable", "--now", UNIT)
    with storage_errors(unit):
        unit.unlink(missing_ok=True)
        fsync_dir(unit.parent)
    if runs(scope):
        systemctl(scope, "daemon-reload")
    yield f"removed {unit}"
    yield f"sheds keep running, and all data stays in {Paths().data}"


def _home(run_as: str | None, scope: Scope) -> Path:
    """Return the home of the user whom the server runs as.  Raises `UsageError` for a user that does not exist."""
    if run_as is None:
        return Path.home()
    if scope is Scope.USER:
        raise UsageError(
            "a user's service runs as that user", hint="leave out --run-as, or install it for the machine as root"
        )
    try:
        return Path(pwd.getpwnam(run_as).pw_dir)
    except KeyError:
        raise UsageError(
            f"there is no user {run_as!r}", hint="make the user first, for example: adduser --system shed"
        ) from None


def _program() -> list[str]:
    """Return how the program that runs now is started by somebody else."""
    script = Path(sys.executable).with_name("shed-server")
    return [str(script)] if script.exists() else [sys.executable, "-m", "shed.server.main"]


def _write(path: Path, text: str) -> bool:
    """Make `text` the content of `path`; False when it is that already."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.read_text(errors="replace") == text:
            return False
    atomic_write(path, text, mode=0o644)
    return True


def _stop_other(socket: Path) -> Iterator[str]:
    """End a server that nobody installed, which has the data folder; its VMs stay.

    Raises `UnavailableError` when it does not end.
    """
    if _answers(socket, "POST", "/api/server/stop"):
        deadline = time.monotonic() + _STOP_TIMEOUT
        while _answers(socket, "GET", "/api/info"):
            if time.monotonic() > deadline:
                raise UnavailableError(f"the server at {socket} does not end", hint="stop it first: shed server stop")
            time.sleep(0.05)
        yield "stopped the server that ran here; sheds keep running"


def _answers(socket: Path, method: str, target: str) -> bool:
    """Tell whether a server is there, be it one that has no answer any more."""
    try:
        local.ask(socket, method, target)
    except UnavailableError as error:
        return error.code != "SERVER_NOT_RUNNING"
    return True
