"""Standing still, while the machine is kept as it is: no process runs but the agent, and nobody writes to the upper.

Processes are frozen by their control groups, of which they see nothing.  The file system comes after them: nobody is in
the middle of a write then.  Who goes on from what was kept is told so before a process runs.
"""

from __future__ import annotations

import os

from shed.guest import syscalls
from shed.guest.configure import steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.guest.loop import Loop

_ROOTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
"""Where control groups of version 2 are: the second with a systemd that wants both."""
_ASIDE = "shed-frozen"
"""The group of those that are in none: the first one, with all others in it, cannot be frozen."""
_ROUNDS = 50
"""Looks for processes that were made while others were moved."""
_SECONDS, _BETWEEN_LOOKS = 3.0, 0.002


class Freezer:
    """Freezes all processes but this one, and the file system of the folder `upper`, which is open."""

    def __init__(self, upper: int, *, roots: tuple[str, ...] = _ROOTS, proc: str = "/proc") -> None:
        self._upper = upper
        self._roots = roots
        self._proc = proc
        self._root = ""
        self._home = ""
        self._groups: list[str] = []
        self._still = False
        self._given_up = False

    async def freeze(self, loop: Loop) -> None:
        """Have all stand still.  Raises `OSError`; then all go on."""
        try:
            self._root = self._find_root()
            self._home = _own_group(self._proc)
            self._join(self._root)  # or we would be frozen with those that are where we are
            self._gather()
            self._groups = [group for group in self._below() if steps.read_file(f"{group}/cgroup.freeze") == "0\n"]
            for group in self._groups:
                steps.write_value(f"{group}/cgroup.freeze", "1")
            await self._frozen(loop)
            if self._given_up:
                raise OSError("it was given up")
            if self._upper >= 0:
                syscalls.freeze(self._upper)
                self._still = True
        except OSError:
            self.thaw()
            raise

    def thaw_disk(self) -> None:
        """Have the file system be written to again.  Raises `OSError`."""
        if self._still:
            syscalls.thaw(self._upper)
            self._still = False

    def thaw(self) -> None:
        """Have all go on.  Raises `OSError`."""
        self._given_up = True
        self.thaw_disk()
        for group in self._groups:
            try:
                steps.write_value(f"{group}/cgroup.freeze", "0")
            except FileNotFoundError:
                pass  # somebody removed it before it was frozen
        self._groups = []
        aside = f"{self._root}/{_ASIDE}"
        for _ in range(_ROUNDS):
            if not (pids := steps.read_file(f"{aside}/cgroup.procs").split()):
                break
            for pid in pids:
                _move(pid, self._root)
        try:
            os.rmdir(aside)
        except OSError:
            pass  # it is not there, or is used the next time
        if self._home not in {"", "/"}:
            self._join(self._root + self._home)
        self._home = ""

    def _find_root(self) -> str:
        for root in self._roots:
            if os.path.exists(f"{root}/cgroup.controllers"):
                return root
        raise OSError("there are no control groups of version 2 at /sys/fs/cgroup")

    def _join(self, group: str) -> None:
        steps.write_value(f"{group}/cgroup.procs", str(os.getpid()))

    def _gather(self) -> None:
        """Move those that are in no group into one.  Threads of the kernel stay: they have no program."""
        aside = f"{self._root}/{_ASIDE}"
        steps.make_folder(aside)
        own = str(os.getpid())
        for _ in range(_ROUNDS):
            moved = 0
            for pid in steps.read_file(f"{self._root}/cgroup.procs").split():
                if pid != own and _has_program(self._proc, pid):
                    moved += _move(pid, aside)
            if not moved:
                return
        raise OSError("processes are made faster than they can be frozen")

    def _below(self) -> list[str]:
        return [entry.path for entry in os.scandir(self._root) if entry.is_dir(follow_symlinks=False)]

    async def _frozen(self, loop: Loop) -> None:
        deadline = loop.now() + _SECONDS
        left = self._groups
        while left := [group for group in left if "frozen 0" in steps.read_file(f"{group}/cgroup.events")]:
            if loop.now() > deadline:
                raise OSError(f"the processes of {left[0].rpartition('/')[2]} do not stand still")
            await loop.sleep(_BETWEEN_LOOKS)


def _own_group(proc: str) -> str:
    for line in steps.read_file(f"{proc}/self/cgroup").splitlines():
        if line.startswith("0::"):
            return line[3:]
    return ""


def _has_program(proc: str, pid: str) -> bool:
    try:
        os.readlink(f"{proc}/{pid}/exe")
    except OSError:
        return False
    return True


def _move(pid: str, group: str) -> bool:
    """Tell whether it could be moved: it may have ended."""
    try:
        steps.write_value(f"{group}/cgroup.procs", pid)
    except OSError:
        return False
    return True
