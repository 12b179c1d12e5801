"""Warming up: going through a start once, in a process with mounts of its own, on disks that are thrown away.

An emulated processor translates code before it runs it for the first time, and that is most of what a start of a
restored machine takes. A machine that waits to become a shed has been through all of it: what is left is the start
itself.
"""

from __future__ import annotations

import os
import time

from shed.guest import syscalls, users
from shed.guest.configure import disks, identity, mounts, overlay, trust
from shed.guest.configure.request import Authority
from shed.guest.tasks import Event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.guest.configure.steps import Places
    from shed.guest.loop import Loop

_FREE_SECONDS = 5.0
_BUSYBOX = "/bin/busybox"
"""Where the runtime has it, which stands for the image."""


async def warm_up(loop: Loop, places: Places) -> None:
    """Do what a start does with the disks that are there, and let go of them.

    Raises `OSError` when it fails, or they stay in use.
    """
    pid = os.fork()
    if pid == 0:
        try:
            _start(places)
            os._exit(0)
        except BaseException as error:  # noqa: BLE001  nothing may ever leave this block
            loop.log(f"the rehearsal failed: {error}")
        finally:
            os._exit(1)
    statuses: list[int] = []
    ended = Event()

    def over(status: int) -> None:
        statuses.append(status)
        ended.set()

    loop.on_exit(pid, over)
    await ended.wait()
    if statuses != [0]:
        raise OSError("the rehearsal failed; the console says why")
    for disk in places.own_disks:
        _await_free(disk)


def _start(places: Places) -> None:
    """In the child: all that `configure` does about disks, root and identity, and a command."""
    syscalls.leave_mounts()
    disks.mount_upper(places)
    disks.mount_root(places)
    overlay.mount_overlay(places)
    overlay.enter(places)
    identity.set_hostname("rehearsal")
    identity.settle("", "rehearsal")
    trust.install([Authority({"id": "rehearsal", "pem": "rehearsal", "subject": "rehearsal"})])
    mounts.make_workspace("/workspace", [], users.default_user("", "shed")[0])
    if os.waitpid(os.posix_spawn(_BUSYBOX, ["busybox", "true"], {}, setsid=True), 0)[1]:
        raise OSError(f"{_BUSYBOX} true failed")


def _await_free(disk: str) -> None:
    """Wait until nothing holds `disk`, so that the kernel has forgotten what is on it.  Raises `OSError`."""
    deadline = time.monotonic() + _FREE_SECONDS
    while True:
        try:
            os.close(os.open(disk, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return
