"""What a VMM gets in its jail: decided on the server's side, carried out by the launcher.

A jail is described by the mounts that are all of its root.  Programs and libraries are there to be read and executed;
the disks, the network card, the console and the sockets come as descriptors; what the VMM opens by name is the kernel,
the initrd, its firmware, `/dev/kvm`, and the folders that it serves.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

from shed.backends.base import SHARE_MODES, mounted_at
from shed.backends.guard.filter import ALL_SHARES, FREE, SHARES
from shed.backends.guard.mode import Guard
from shed.backends.jail import filter as calls

FIRST_USER = 0x78000000
"""A VM of root's server runs as this user plus its process id: 2013265920 to 2017460223, which no distribution, systemd
or directory service gives away.  No file ever belongs to one of them.
"""
_MOST_PROCESSES = 1 << 22
_RDONLY, _NOSUID, _NODEV, _NOEXEC = 1, 2, 4, 8
_PROGRAMS = _RDONLY | _NOSUID | _NODEV
_FILES = _RDONLY | _NOSUID | _NODEV | _NOEXEC
_LIBRARIES = ("/usr/lib", "/usr/lib64", "/lib", "/lib64")
_DATA = ("/usr/share/qemu", "/usr/share/seabios", "/usr/share/qemu-kvm", "/etc/ld.so.cache", "/etc/ld.so.conf")
_SYSTEM = ("/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/libexec")
"""Where a program is alone in its jail, without what is beside it."""
_BESIDE = ("lib", "lib64", "libexec", "share/qemu", "share/seabios", "pc-bios")
"""What a program from elsewhere, `PREFIX/bin/NAME`, gets below its prefix: that may be somebody's home."""

FOLDERS, GONE = os.fsdecode(ALL_SHARES), "/gone"
"""What has all folders that a VMM serves, and where those go that are taken from it."""

Numbers = tuple[int, int, int, int]
"""User and group in a user namespace, and which they are outside."""


class JailOrders(TypedDict):
    """What the launcher is told about a jail."""

    own: Numbers | None
    """For a server of an ordinary user: the numbers in the user namespace."""
    given: Numbers | None
    """For root's server: the numbers in a user namespace that root gives them to; else the user is made up."""
    first_user: int
    groups: list[int] | None
    """For root's server: all further groups; None where they cannot be changed."""
    mounts: list[tuple[str, str, int]]
    """Source on the host, target, attributes."""
    shares: list[tuple[str, str, int, tuple[int, int] | None]]
    """As `mounts`, the folders that it serves: no part of a source is a link, and it has that identity."""
    empty: list[str]
    """Folders with nothing in them."""
    links: list[tuple[str, str]]
    """Symbolic links: name and text."""
    writable: list[str]
    """Targets, for Landlock."""
    proc: bool
    """Whether it needs ``/proc``, of its own processes alone."""


class Orders(TypedDict):
    """What the launcher is told."""

    command: list[str]
    descriptors: NotRequired[list[int]]
    """The numbers that the descriptors are to have which come with this."""
    folder: str
    network: bool
    supervised: bool
    files: int
    """How many open files the VMM gets."""
    memory: bool
    """Whether there is one more, which it gets when it opens its memory."""
    filters: list[bytes]
    listen: bool
    """Whether the last of the filters asks somebody."""
    jail: JailOrders | None


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that the VMM serves."""

    path: Path
    """Without links: the launcher follows none."""
    mode: str = SHARE_MODES[0]
    """One of `shed.backends.base.SHARE_MODES`."""
    identity: tuple[int, int] | None = None
    """Device and number of the folder that was looked at; None when nobody has."""

    @property
    def writable(self) -> bool:
        """Say whether it may be written."""
        return self.mode != "ro"


@dataclass(frozen=True, slots=True)
class Jail:
    """What one VMM gets."""

    program: Path
    files: tuple[tuple[Path, str], ...] = ()
    """What it opens to be read, and where."""
    folders: tuple[Folder, ...] = ()
    more: bool = False
    """Whether it may get further ones, see `shed.backends.jail.mounter`."""
    devices: tuple[Path, ...] = ()
    user: Numbers | None = None
    """Who it is inside, and who that is outside; None: somebody who owns nothing."""


def inside(path: Path, mode: str = SHARE_MODES[0]) -> str:
    """Return where a folder that a VMM serves in this mode is in its jail."""
    return f"{FOLDERS}/{mounted_at(path, mode)}"


def attributes(*, writable: bool) -> int:
    """Return those of the mount of a folder that a VMM serves."""
    return _NOSUID | _NODEV | _NOEXEC | (0 if writable else _RDONLY)


def orders(jail: Jail, *, uid: int, gid: int) -> JailOrders:
    """Return what the launcher of a server of user `uid`, group `gid` is told."""
    mounts, links = _programs(jail.program)
    mounts += [(str(path), target, _FILES) for path, target in jail.files]
    mounts += [(str(path), str(path), _NOSUID | _NOEXEC) for path in jail.devices]
    folders = sorted(jail.folders, key=lambda folder: folder.path)
    shares = [
        (str(one.path), inside(one.path, one.mode), attributes(writable=one.writable), one.identity) for one in folders
    ]
    writable = [*map(str, jail.devices), *([FOLDERS] if jail.more else [])]
    writable += [inside(folder.path, folder.mode) for folder in folders if folder.writable]
    own = (jail.user or (uid, gid, uid, gid)) if uid else None
    return JailOrders(
        own=own,
        given=None if uid else jail.user or (None if _made_up_users() else (uid, gid, uid, gid)),
        first_user=FIRST_USER,
        groups=_groups(jail.devices),
        mounts=mounts,
        shares=shares,
        empty=[os.fsdecode(SHARES), os.fsdecode(FREE), GONE] if jail.more else [],
        links=links,
        writable=writable,
        proc=jail.more or any(folder.writable for folder in jail.folders),
    )


def _groups(devices: Sequence[Path]) -> list[int] | None:
    """Return the groups by which devices are opened."""
    if Path("/proc/self/setgroups").read_text() == "deny\n":
        return None
    return sorted({status.st_gid for status in map(os.stat, devices) if not status.st_mode & stat.S_IWOTH})


def _made_up_users() -> bool:
    """Tell whether there are the users that nobody has; in a container with users of its own there may be none."""
    maps = [[int(word) for word in line.split()] for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return any(first <= FIRST_USER and first + count >= FIRST_USER + _MOST_PROCESSES for first, _, count in maps)


def filters(jail: Jail, guard: Guard, *, memory: bool) -> list[bytes]:
    """Return the seccomp programs, the last of which asks somebody if any does."""
    found = [
        calls.program(shares=jail.more or bool(jail.folders)),
        *([guard.program] if guard.program else []),
    ]
    if memory:
        found[-1] = calls.asking_for_memory(found[-1])
    return found


def _programs(program: Path) -> tuple[list[tuple[str, str, int]], list[tuple[str, str]]]:
    """Return the mounts and links by which `program` runs: itself, libraries and its data."""
    mounts: list[tuple[str, str, int]] = []
    links: list[tuple[str, str]] = []
    for path in map(Path, (*_LIBRARIES, *_DATA)):
        if path.is_symlink():
            links.append((str(path), str(path.readlink())))
        elif path.exists():
            mounts.append((str(path), str(path), _PROGRAMS))
    real = program.resolve()
    if str(real.parent) not in _SYSTEM:
        taken = {target for _, target, _ in mounts} | {name for name, _ in links}
        beside = [real.parent.parent / name for name in _BESIDE]
        mounts += [(str(path), str(path), _PROGRAMS) for path in beside if path.is_dir() and str(path) not in taken]
    if not any(real.is_relative_to(path) for path, _, _ in mounts):
        mounts.append((str(real), str(real), _PROGRAMS))
    return mounts, links
