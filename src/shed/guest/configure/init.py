"""Who is PID 1: the agent, or the image's systemd with the agent beside it."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os

from shed.guest.configure import steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shed.guest.loop import Loop

_INIT = "/sbin/init"
_RUNTIME_UNITS = "/run/systemd/system"
_MASKED = (
    "getty@.service",
    "serial-getty@.service",
    "systemd-firstboot.service",
    "systemd-modules-load.service",
    "tmp.mount",
)
"""Units that have no place here: nobody logs in on a terminal (and a serial one is waited for a minute and a half),
questions at the first boot would never be answered, the kernel's modules are not in the image, and a mount would hide
what commands that systemd did not wait for have put into /tmp.  What an image says in /etc wins over this.
"""


def choose(asked: str, *, root: str = "") -> str:
    """Return "agent" or "systemd".  Raises `StepError` when systemd is asked for and not there."""
    if asked == "agent":
        return "agent"
    if has_systemd(root):
        return "systemd"
    if asked == "systemd":
        raise steps.StepError(steps.HAND_OVER, f"the image has no systemd at {_INIT}")
    return "agent"


def has_systemd(root: str = "") -> bool:
    """Return whether the image's init is systemd."""
    try:
        return os.readlink(root + _INIT).rpartition("/")[2] == "systemd" and os.access(
            f"{root}/lib/systemd/systemd", os.X_OK
        )
    except OSError:
        return False


def hand_over(loop: Loop, before: Callable[[], None] | None = None) -> None:
    """Make PID 1 the image's init.

    Who returns from here is a child of it that goes on as the agent, with everything open as before.

    PID 1 calls `before` first: what the image's services need is there when they start, and the agent does not wait for
    it.
    """
    steps.make_folder(_RUNTIME_UNITS)
    for unit in _MASKED:
        os.symlink("/dev/null", f"{_RUNTIME_UNITS}/{unit}")
    if os.fork() == 0:
        loop.reap_only_own()
        os.setsid()
        return
    try:
        if before:
            before()
    except OSError as error:
        loop.log(f"identity could not be recorded: {error}")
    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
    _signal.signal(_signal.SIGXFSZ, _signal.SIG_DFL)
    try:
        os.execve(
            _INIT, [_INIT], {"TERM": "linux", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        )
    finally:
        os.write(2, f"shed-agent: PANIC [{steps.HAND_OVER}]: cannot execute {_INIT}\n".encode())
        while True:
            _signal.pause()
