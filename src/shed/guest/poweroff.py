"""The end of a VM: processes get a moment to finish, the upper is written and its journal emptied, power off.

All of it takes less than a second: the host waits no longer.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os

from shed.guest import syscalls
from shed.guest.configure import identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.guest.loop import Loop
    from shed.guest.state import State

_ANSWER_SECONDS = 0.02
"""For the answer to the host to leave the machine."""
_GRACE_SECONDS = 0.4
_POLL_SECONDS = 0.02


async def power_off(loop: Loop, state: State, *, reboot: bool = False) -> None:
    """End everything and switch off, or restart.  Does not return."""
    await loop.sleep(_ANSWER_SECONDS)
    for session in list(state.sessions):
        session.hang_up()
    _signal_all(_signal.SIGTERM)
    deadline = loop.now() + _GRACE_SECONDS
    while loop.now() < deadline and others_run():
        await loop.sleep(_POLL_SECONDS)
    _signal_all(_signal.SIGKILL)
    _settle(state)  # now that nobody else is at it
    if state.upper_fd >= 0:
        try:
            syscalls.freeze(state.upper_fd)
        except OSError as error:
            loop.log(f"the upper could not be frozen: {error}")
            os.sync()
    (syscalls.reboot if reboot else syscalls.power_off)()


def _settle(state: State) -> None:
    """Record the identity of this shed, if it ended before that was done.

    When this takes long, it is left to the next start.
    """
    if state.unsettled and not identity.needs_keys(""):
        try:
            identity.finish_settling("", state.name)
        except OSError:
            pass  # likewise


def _signal_all(number: int) -> None:
    """Send a signal to everybody but PID 1 and ourselves."""
    try:
        os.kill(-1, number)
    except ProcessLookupError:
        pass


def others_run(proc: str = "/proc") -> bool:
    """Return whether any program runs but PID 1 and ourselves; kernel threads and the dead do not count."""
    for entry in os.listdir(proc):
        if entry.isdecimal() and int(entry) not in {1, os.getpid()}:
            try:
                with open(f"{proc}/{entry}/cmdline", "rb", buffering=0) as file:
                    if file.read(1):
                        return True
            except OSError:
                continue
    return False
