"""Checks of what holds guests, images and registries that are hostile, by trying it on this host."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from shed.backends.guard.filter import NOTIFY
from shed.errors import ShedError, UnavailableError
from shed.run import run
from shed.server import local
from shed.server.doctor.result import Host, Result, Status
from shed.sheds import folders
from shed.sizes import format_size
from shed.text import visible

_SECCOMP, _GET_ACTION_AVAILABLE = 317, 2
"""seccomp(2), x86-64."""
_LONGEST_CONSOLE = 16 << 20
_GIT_SECONDS = 10.0
_METADATA = "169.254.169.254"
"""Where clouds tell the machines in them their secrets."""


def shared_folders(host: Host) -> Iterator[Result]:
    """The kernel can ask a supervisor about the names that a guest makes in a shared folder."""
    action = ctypes.c_uint32(NOTIFY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_SECCOMP, _GET_ACTION_AVAILABLE, 0, ctypes.byref(action)):
        why = os.strerror(ctypes.get_errno())
        hint = "use Linux 5.9 or newer with seccomp, or share folders with :ro"
        yield Result(
            "shared folders",
            Status.WARN,
            f"sheds with a writable folder do not start: no seccomp user notification: {why}",
            hint,
        )
    else:
        yield Result("shared folders", Status.PASS, "the kernel asks about each name that a guest makes in one")


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
        if (paths.instances / name / "vm.json").exists() and not _is_kept(console):
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


def _is_kept(console: Path) -> bool:
    """Tell whether somebody holds the lock of a console's log, as its keeper does for as long as the VM may write."""
    try:
        file = os.open(console, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True  # nothing that could grow
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
