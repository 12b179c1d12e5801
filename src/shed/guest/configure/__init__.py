"""The second half of a start: from a machine that said hello to a shed.

One request (see `request`) brings disks, root, identity, network, folders, clock and entropy; the answer is {"ready_ms", "steps" in
milliseconds, "init", "user"}, or one of the numbered failures of `steps`, which also goes to the console.
"""

from __future__ import annotations

import resource
import time

from shed.guest import state, syscalls, users
from shed.guest.configure import disks, identity, init, modules, mounts, network, overlay
from shed.guest.configure.request import Request
from shed.guest.configure.steps import HAND_OVER, UPPER_MISSING, Places, StepError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.guest.loop import Loop
    from shed.guest.state import State

__all__ = ["StepError", "configure"]
_OPEN_FILES = 524288
"""Limit of open files, as systemd sets it; the kernel's own for the first process is 4096.  Commands start with a lower soft one."""


async def configure(loop: Loop, shed: State, value: dict[str, object], places: Places | None = None) -> dict[str, object]:
    """Make this machine the shed that `value` describes.  Raises `ValueError` before anything is touched, and `StepError`."""
    from shed.guest.control import set_clock

    request = Request(value)
    places = places or Places()
    watch = _Stopwatch()
    if request.clock is not None:
        set_clock(request.clock)
    if request.entropy:
        syscalls.add_entropy(request.entropy)
    watch.lap("clock")
    from shed.guest import exec as _command  # noqa: F401  ready for the first command: free while the modules are still being loaded

    if shed.disks_let_go is None:
        disks.await_modules(places.modules)
    else:
        _take_disks(shed.disks_let_go)
    watch.lap("modules")
    shed.upper_fd = disks.mount_upper(places)
    watch.lap("upper")
    disks.mount_root(places)
    overlay.mount_overlay(places)
    watch.lap("root")
    overlay.enter(places)
    watch.lap("enter")
    _offer_modules(loop)
    init_mode = init.choose(request.init)
    user = users.default_user(request.user)
    try:
        identity.set_hostname(request.hostname)
        new = identity.settled_name("") != request.name
        if new:
            identity.settle("", request.hostname)
        watch.lap("identity")
        _set_up_network(loop, request)
        watch.lap("network")
        for mount in request.mounts:
            mounts.mount_share(mount)
        mounts.make_workspace(request.workspace, request.mounts, user)
        watch.lap("mounts")
    except OSError as error:
        raise StepError(HAND_OVER, f"cannot prepare the root: {error}") from None
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    if init_mode == "systemd":
        init.hand_over(loop, (lambda: identity.finish_settling("", request.name)) if new else None)
    elif new:
        identity.finish_settling_beside(loop, "", request.name)
    watch.lap("init")
    shed.name, shed.user, shed.env, shed.workspace, shed.init = request.name, user, request.env, request.workspace, init_mode
    shed.phase = state.READY
    return {
        "ready_ms": watch.total(),
        "steps": watch.laps,
        "init": init_mode,
        "user": {"name": user.name, "uid": user.uid, "gid": user.gid, "home": user.home},
    }


def _take_disks(names: list[str]) -> None:
    from shed.guest.rest import take_disks

    try:
        take_disks(names)
    except OSError as error:
        raise StepError(UPPER_MISSING, f"cannot take the disks {names}: {error}") from None


def _offer_modules(loop: Loop) -> None:
    """Most sheds use no module but those that are loaded."""
    try:
        modules.load_on_demand()
    except OSError as error:
        loop.log(f"no kernel modules on demand: {error}")


def _set_up_network(loop: Loop, request: Request) -> None:
    """A shed without network still is a shed: say so on the console and go on."""
    try:
        network.set_up(request.network)
        network.write_resolv_conf("", request.network)
    except OSError as error:
        loop.log(f"no network: {error}")


class _Stopwatch:
    """Milliseconds of each step."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round((now - self._last) * 1000, 1)
        self._last = now

    def total(self) -> float:
        return round((time.monotonic() - self._start) * 1000, 1)
