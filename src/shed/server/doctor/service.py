"""Checks of the server: its configuration, its service, and whether it answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from shed.checks import Result, Status
from shed.config.server import find_settings, load_settings
from shed.errors import UnavailableError, UsageError
from shed.fsutil import can_link
from shed.server import local
from shed.server.doctor.host import Host
from shed.server.service import systemd
from shed.version import VERSION


def configuration(host: Host) -> Iterator[Result]:
    """The configuration that a server would read can be read, and done."""
    path, paths = host.config or find_settings(), host.paths
    settings = load_settings(path)
    if settings.warm_spares and paths.spares.exists() and not can_link(paths.spares, paths.instances):
        detail = (
            f"no spares are kept: {paths.spares} and {paths.instances} are different mounts, and none could "
            "become a shed"
        )
        yield Result("configuration", Status.WARN, detail, "have both on one file system, or set qemu.warm_spares to 0")
        return
    from shed.server.ssh.keys import read_keys  # noqa: PLC0415  it takes a moment

    try:
        read_keys(settings.ssh_authorized_keys, paths.data)
    except UsageError as error:
        yield Result("configuration", Status.WARN, error.message, error.hint or "")
        return
    yield Result("configuration", Status.PASS, f"{path} is valid" if path else "no file: all is at its default")


def ssh_clients(host: Host) -> Iterator[Result]:
    """What `shed ssh-config --install` wrote for this user names a key."""
    path = Path("~/.shed/ssh_config").expanduser()
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    if text.count("\nHost ") > text.count("\n    IdentityFile "):
        yield Result(
            "ssh clients",
            Status.WARN,
            f"{path} has sheds without a key, so they are refused",
            "shed ssh-config --install",
        )
    else:
        yield Result("ssh clients", Status.PASS, f"{path} names the key of each shed")


def service(host: Host) -> Iterator[Result]:
    """The service is there and runs; without it, `shed` starts a server when it needs one."""
    scope = systemd.Scope.mine()
    unit = systemd.find_unit(scope)
    if unit is None:
        detail = (
            "not installed: the server runs from the first `shed` command on, and not from the start of this machine"
        )
        yield Result("service", Status.WARN, detail, "shed-server install")
    elif not systemd.runs(scope):
        yield Result("service", Status.WARN, f"{unit} is there, but systemd does not run here")
    elif (state := systemd.state(scope)) != "active":
        yield Result("service", Status.WARN, f"{unit} is {state}", f"{scope.command} status {systemd.UNIT}")
    else:
        yield Result("service", Status.PASS, f"{unit} is active")


def answers(host: Host) -> Iterator[Result]:
    """The server answers at its socket, and is of this version."""
    socket = host.paths.socket
    try:
        about = local.ask(socket, "GET", "/api/info")
    except UnavailableError as error:
        status = Status.WARN if error.code == "SERVER_NOT_RUNNING" else Status.FAIL
        yield Result.of("server", error, status)
        return
    version, pid = about.get("version"), about.get("pid")
    if version == VERSION:
        yield Result("server", Status.PASS, f"{VERSION} answers at {socket}, process {pid}")
    else:
        detail = f"the server at {socket}, process {pid}, is version {version}; this is {VERSION}"
        yield Result("server", Status.WARN, detail, "restart it; running sheds stay")
