"""Checks of what holds guests, images and registries that are hostile, by trying it on this host."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from shed.checks import Result, Status
from shed.errors import ShedError, UnavailableError
from shed.run import run
from shed.server import local
from shed.server.doctor.host import Host
from shed.sheds import folders
from shed.sizes import format_size
from shed.text import visible

_LONGEST_CONSOLE = 16 << 20
_GIT_SECONDS = 10.0
_METADATA = "169.254.169.254"
"""Where clouds tell the machines in them their secrets."""


def shared_folders(host: Host) -> Iterable[Result]:
    """The kernel can ask a supervisor about the names that a guest makes in a shared folder."""
    return host.diagnostics.shared_folders()


def repositories(host: Host) -> Iterator[Result]:
    """Git takes no files of a branch for a repository, whose settings it would obey."""
    try:
        answer = run(
            ["git", "config", "--get", "safe.bareRepository"], cwd=Path("/"), check=False, timeout=_GIT_SECONDS
        )
    except ShedError:
        yield Result("repositories", Status.PASS, "there is no git on this machine")
        return
    if answer.stdout.strip() == b"explicit":
        yield Result("repositories", Status.PASS, "git takes no files of a branch for a repository")
    else:
        detail = "git runs what a repository among the files of a branch says, when you work in that folder"
        yield Result("repositories", Status.WARN, detail, "git config --global safe.bareRepository explicit")


def consoles(host: Host) -> Iterator[Result]:
    """Each VM that runs has a keeper, which bounds what its guest writes to the console."""
    paths, without, long = host.paths, [], []
    for name in folders.names(paths):
        console = paths.instances / name / "console.log"
        if not host.diagnostics.console_is_bounded(paths.instances / name):
            without.append(name)
        with contextlib.suppress(FileNotFoundError):
            if console.stat().st_size > _LONGEST_CONSOLE:
                long.append(name)
    if long:
        detail = f"longer than {format_size(_LONGEST_CONSOLE)}: the consoles of {', '.join(long)}"
        yield Result("consoles", Status.FAIL, detail, "shed system prune --logs")
    elif without:
        detail = (
            f"bounded only while a server runs: the consoles of {', '.join(without)}, started by an earlier version"
        )
        yield Result("consoles", Status.WARN, detail, "stop and start them")
    else:
        yield Result("consoles", Status.PASS, "each VM that runs has a keeper that bounds its console")


def guests(host: Host) -> Iterator[Result]:
    """No guest has been caught at misusing its link."""
    try:
        answer = local.ask(host.paths.socket, "GET", "/api/sheds")
    except UnavailableError:
        yield Result("guests", Status.WARN, "no server runs that could be asked", "shed server start")
        return
    told = [(shed.get("name"), str(shed.get("detail"))) for shed in answer.get("sheds", []) if shed.get("detail")]
    caught = [f"{name}: {detail}" for name, detail in told if detail.startswith("its link was dropped")]
    if caught:
        yield Result("guests", Status.WARN, visible("; ".join(caught)), "shed stop NAME, and look at what it ran")
    else:
        yield Result("guests", Status.PASS, "none was caught at misusing its link to the host")


def registries(host: Host) -> Iterator[Result]:
    """No registry can lead a pull to this machine, or to the secrets of a cloud."""
    from shed.oci.registry.connections import Connections  # noqa: PLC0415  it takes a moment

    let_in = []
    for address in (_METADATA, "127.0.0.1", "10.0.0.1"):
        with contextlib.suppress(ShedError):
            Connections("registry.example").check("elsewhere.example", 443, address)
            let_in.append(address)
    allowed = host.settings.private_hosts
    if let_in:
        yield Result(
            "registries",
            Status.FAIL,
            f"a registry can lead to {', '.join(let_in)}",
            "this is a bug in shed: please report it",
        )
    elif allowed:
        yield Result(
            "registries",
            Status.WARN,
            f"registries may lead inside, to {', '.join(allowed)}",
            "see limits.private_hosts",
        )
    else:
        yield Result(
            "registries", Status.PASS, "none can lead a pull to this machine, your network, or a cloud's metadata"
        )
