"""A control group (version 2) for each VM: its memory, its processor time and its tasks end where its budget does.

Two ways, the first that works here is taken:

* **systemd**: a scope of its own below ``shed.slice``, asked of our manager (for root that of the machine, else that of
  the user).  It is no part of the server's unit, so a stop, a restart or an update of the server touches no VM.  And
  systemd, which owns the tree of groups, knows of it.
* **files**: for root where systemd does not run, a directory below ``shed`` in the tree itself.

Version 1 is not supported: it has no one tree in which a group would be all of a VM.

Sources: kernel, Documentation/admin-guide/cgroup-v2.rst; systemd.resource-control(5).
"""

from __future__ import annotations

import contextlib
import enum
import os
import pwd
import time
from dataclasses import dataclass
from pathlib import Path

from shed.backends.qemu import scopes
from shed.backends.qemu.budget import Budget
from shed.errors import BackendError

NEEDED = ("memory", "pids")
"""Controllers without which a group bounds nothing that matters."""
_WANTED = (*NEEDED, "cpu", "io")
SLICE = "shed"
_HIERARCHY = "sys/fs/cgroup"
_PLACE_TIMEOUT = 5.0
_BETWEEN_LOOKS = 0.001
_PERIOD = 100_000
"""Microseconds in which a VM's processor time is counted."""
_WEIGHT = 100
"""Of a VM among VMs, for the processor and the disk: all are the same."""
_TRIES = 3


class Way(enum.StrEnum):
    """How groups are made here."""

    SYSTEM = "the machine's systemd"
    USER = "the user's systemd"
    FILES = "the control group files"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Groups:
    """How VMs get their groups here.

    With `Way.NONE`, `reason` says why they do not, and `hint` what would change that.
    """

    way: Way
    reason: str = ""
    hint: str = ""
    root: Path = Path("/")

    def place(self, pid: int, name: str, budget: Budget) -> None:
        """Put the process `pid`, alone, into a new group called after `name` that holds it to `budget`.

        Raises `BackendError` (NO_CONTROL_GROUP); the process may then be in a group that bounds less.
        """
        if self.way is Way.NONE:
            raise _error(self.reason, self.hint)
        try:
            if self.way is Way.FILES:
                _place_by_files(self.root / _HIERARCHY / SLICE, pid, name, budget)
            else:
                _place_by_systemd(self.root, pid, f"shed-{name}.scope", budget)
            self._check(pid, budget)
        except OSError as error:
            raise _error(f"{error.filename or 'systemd'}: {error.strerror or error}") from error

    def _check(self, pid: int, budget: Budget) -> None:
        """Raise `BackendError` when the group of `pid` does not hold it to its memory and tasks."""
        group = self.root / _HIERARCHY / group_of(pid, self.root).lstrip("/")
        for file, wanted in {"memory.max": budget.memory_bytes, "pids.max": budget.tasks}.items():
            try:
                found = (group / file).read_text().strip()
            except FileNotFoundError:
                hand_down = f"hand it down: systemctl edit user@.service, Delegate={' '.join(_WANTED)}"
                why = f"the controller {file.partition('.')[0]} is not at work for VMs"
                raise _error(why, hand_down if self.way is Way.USER else "") from None
            if found == "max" or int(found) > wanted:
                raise _error(f"{file} is {found}, and not {wanted}")


def find(*, uid: int | None = None, root: Path = Path("/")) -> Groups:
    """Return how VMs of a server of user `uid` (default: this user) get their control groups.

    `root` is the root directory of the host.
    """
    uid = os.geteuid() if uid is None else uid
    try:
        controllers = (root / _HIERARCHY / "cgroup.controllers").read_text().split()
    except OSError:
        return Groups(
            Way.NONE,
            "this host has no control groups of version 2 at /sys/fs/cgroup",
            "boot with systemd.unified_cgroup_hierarchy=1",
        )
    if missing := [name for name in NEEDED if name not in controllers]:
        return Groups(Way.NONE, f"the control groups of this host do not count {' and '.join(missing)}")
    if (root / "run/systemd/system").is_dir():
        linger = f"loginctl enable-linger {uid}"
        if scopes.manager(root, uid) is None:
            return Groups(Way.NONE, f"no systemd is reached for user {uid}", f"have one run: {linger}")
        if uid and not _outlives_logins(root, uid):
            return Groups(
                Way.NONE,
                f"the systemd of user {uid} ends when that user logs out, and VMs would with it",
                f"have it stay: {linger}",
            )
        return Groups(Way.USER if uid else Way.SYSTEM, root=root)
    if uid or not os.access(root / _HIERARCHY / "cgroup.subtree_control", os.W_OK):
        return Groups(Way.NONE, "systemd does not run here, and the control group files cannot be written")
    return Groups(Way.FILES, root=root)


def _outlives_logins(root: Path, uid: int) -> bool:
    """Return whether a user's systemd outlives their logout, or this server and its VMs end with it anyhow."""
    with contextlib.suppress(KeyError):
        if (root / "var/lib/systemd/linger" / pwd.getpwuid(uid).pw_name).exists():
            return True
    return f"/user@{uid}.service/" in group_of("self", root)


def group_of(pid: int | str, root: Path = Path("/")) -> str:
    """Return the path of the group of a process, from the hierarchy's root.  Raises OSError."""
    for line in (root / f"proc/{pid}/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return line.removeprefix("0::")
    return "/"


def _place_by_systemd(root: Path, pid: int, unit: str, budget: Budget) -> None:
    before = group_of(pid, root)
    address = scopes.manager(root, os.geteuid())
    if address is None:
        raise _error("systemd is not reached any more")
    properties: scopes.Properties = {
        "Description": ("s", f"VM {unit}"),
        "PIDs": ("au", [pid]),
        "Slice": ("s", f"{SLICE}.slice"),
        "CollectMode": ("s", "inactive-or-failed"),
        "MemoryMax": ("t", budget.memory_bytes),
        "MemorySwapMax": ("t", budget.swap_bytes),
        "TasksMax": ("t", budget.tasks),
        "CPUWeight": ("t", _WEIGHT),
        "CPUQuotaPerSecUSec": ("t", budget.cpu_percent * 10_000),
        "IOWeight": ("t", _WEIGHT),
    }
    scopes.start_scope(address, unit, properties)
    deadline = time.monotonic() + _PLACE_TIMEOUT
    while group_of(pid, root) == before:  # the answer comes before it is done
        if time.monotonic() > deadline:
            raise _error(f"systemd did not make {unit} within {_PLACE_TIMEOUT:g} s")
        time.sleep(_BETWEEN_LOOKS)


def _place_by_files(parent: Path, pid: int, name: str, budget: Budget) -> None:
    top = parent.parent
    parent.mkdir(exist_ok=True)
    for folder in (top, parent):
        for controller in _WANTED:
            with contextlib.suppress(OSError):  # `_check` tells when one is missing that matters
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")
    _remove_empty(parent)
    group = parent / name
    for left in reversed(range(_TRIES)):
        group.mkdir(exist_ok=True)
        try:
            (group / "cgroup.procs").write_text(str(pid))
            break
        except FileNotFoundError:  # another server took it for one that is not used any more
            if not left:
                raise
    values = {
        "memory.max": budget.memory_bytes,
        "memory.swap.max": budget.swap_bytes,
        "pids.max": budget.tasks,
        "cpu.max": f"{budget.cpu_percent * _PERIOD // 100} {_PERIOD}",
        "cpu.weight": _WEIGHT,
        "io.weight": _WEIGHT,
    }
    for file, value in values.items():
        if (group / file).exists():  # a kernel need not count swap, nor have weights for disks
            (group / file).write_text(str(value))


def _remove_empty(parent: Path) -> None:
    """Remove the groups of VMs that have ended; the kernel keeps those in which somebody is."""
    for group in parent.iterdir():
        if group.is_dir():
            with contextlib.suppress(OSError):
                group.rmdir()


def _error(why: str, hint: str = "") -> BackendError:
    more = f"{hint}; " if hint else ""
    return BackendError(
        f"no control group for a VM: {why}",
        code="NO_CONTROL_GROUP",
        hint=f"{more}limits.control_groups says whether a VM may run without",
    )
