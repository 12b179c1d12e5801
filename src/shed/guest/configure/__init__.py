"""The second half of a start: from a machine that said hello to a shed.

One request (see `request`) brings disks, root, identity, network, folders, clock and entropy; the answer is
{"ready_ms", "steps" in milliseconds, "init", "user"}, or one of the numbered failures of `steps`, which also goes to
the console.
"""

from __future__ import annotations

import resource
import time

from shed.guest import state, syscalls, users
from shed.guest.configure import apt, disks, identity, init, modules, mounts, network, overlay, profile, trust
from shed.guest.configure.request import Request
from shed.guest.configure.steps import HAND_OVER, Places, StepError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shed.guest.configure.request import Network
    from shed.guest.loop import Loop
    from shed.guest.state import State

__all__ = ["StepError", "configure"]
_SETTLE_SECONDS = 1.0
"""Until who this shed is gets recorded, so that the first command need not wait for that, which takes 0.3."""
_OPEN_FILES = 524288
"""Limit of open files, as systemd sets it; the kernel's own for the first process is 4096.  Commands start with a lower
soft one.
"""


async def configure(
    loop: Loop, shed: State, value: dict[str, object], places: Places | None = None
) -> dict[str, object]:
    """Make this machine the shed that `value` describes.

    Raises `ValueError` before anything is touched, and `StepError`.
    """
    request = Request(value)
    places = places or Places()
    watch = _Stopwatch()
    if request.clock is not None:
        syscalls.set_clock(request.clock)
    if request.entropy:
        syscalls.add_entropy(request.entropy)
    watch.lap("clock")
    from shed.guest import exec as _command  # noqa: F401  ready for the first command: free while the modules are still being loaded

    if shed.quiesced:
        loop.log("this machine was restored, not booted: what its kernel said is not here")
        disks.await_sizes(places, request.disks)
    else:
        prepare(loop, places)
    watch.lap("machine")
    if shed.network is None or not shed.network.is_like(request.network):
        set_up_network(loop, request.network)
    watch.lap("network")
    shed.upper_fd = disks.mount_upper(places)
    watch.lap("upper")
    disks.mount_root(places)
    overlay.mount_overlay(places)
    watch.lap("root")
    overlay.enter(places)
    watch.lap("enter")
    init_mode = init.choose(request.init)
    user, shed.no_user = users.default_user(request.image_user, request.user)
    try:
        identity.set_hostname(request.hostname)
        new = identity.settled_name("") != request.name
        if new:
            identity.settle("", request.hostname, request.timezone)
        identity.renew_generation()
        watch.lap("identity")
        for mount in request.mounts:
            mounts.mount_share(mount)
        mounts.make_workspace(request.workspace, request.mounts, user)
        watch.lap("mounts")
    except OSError as error:
        raise StepError(HAND_OVER, f"cannot prepare the root: {error}") from None
    shed.equip_later(lambda: equip(loop, request))  # once the answer has left, or for the first command
    if init_mode == "systemd":
        shed.equip()  # what the image's services trust is there when they start
        init.hand_over(loop, (lambda: identity.finish_settling("", request.name)) if new else None)
    elif new:
        shed.unsettled = True
        loop.call_later(_SETTLE_SECONDS, lambda: finish_settling(loop, shed))
    watch.lap("init")
    shed.name, shed.user, shed.env, shed.folders, shed.init = (
        request.name,
        user,
        request.env,
        [folder for folder in (request.folder, request.workspace) if folder],
        init_mode,
    )
    shed.phase = state.READY
    return {
        "ready_ms": watch.total(),
        "steps": watch.laps,
        "init": init_mode,
        "user": {"name": user.name, "uid": user.uid, "gid": user.gid, "home": user.home},
    }


def prepare(loop: Loop, places: Places) -> None:
    """Do what is the same for every shed.  Raises `StepError`."""
    disks.await_modules(places.modules)
    overlay.mount_devices(places)
    try:
        modules.load_on_demand()
    except OSError as error:  # most sheds use no module but those that are loaded
        loop.log(f"no kernel modules on demand: {error}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))


def set_up_network(loop: Loop, wanted: Network | None) -> bool:
    """Tell whether there is a network.  A shed without one still is a shed: say so on the console and go on."""
    try:
        network.set_up(wanted)
    except OSError as error:
        loop.log(f"no network: {error}")
        return False
    return True


def equip(loop: Loop, request: Request) -> dict[str, str]:
    """Do what only commands can tell from its not being done, and return the variables that they need.

    A shed where some of it fails still is a shed: say so on the console and go on.
    """
    wanted = request.network
    steps: tuple[tuple[str, Callable[[], None]], ...] = (
        ("the network card keeps its address", lambda: network.set_mac(wanted.mac if wanted else b"")),
        ("no name service", lambda: network.write_resolv_conf("", wanted)),
        ("login shells lack the image's PATH", lambda: profile.keep_path(request.env)),
        ("apt does not have the host's settings", lambda: apt.set_up(request.apt)),
    )
    for what, step in steps:
        try:
            step()
        except OSError as error:
            loop.log(f"{what}: {error}")
    return {**_trusting(loop, request), **request.variables}


def _trusting(loop: Loop, request: Request) -> dict[str, str]:
    """An image whose files are not what they usually are still is one: say so on the console and go on."""
    try:
        return trust.install(request.authorities)
    except (OSError, ValueError) as error:
        loop.log(f"certificates are not trusted everywhere: {error}")
        return {}


def finish_settling(loop: Loop, shed: State, then: Callable[[], None] = lambda: None) -> None:
    """Have who this shed is recorded, in a process beside, and call `then` once it is."""

    def done() -> None:
        shed.unsettled = False
        then()

    identity.finish_settling_beside(loop, "", shed.name, done)


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
