"""Going on from what was kept, with all standing still: as another shed, or as the one that was suspended.

Who it is changes before a process runs again; what its processes have to know comes right after (see `_HOOKS` and
`shed.guest.configure.identity.GENERATION`).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os

from shed.guest import configure, state, syscalls
from shed.guest.configure import identity
from shed.guest.configure.request import Request
from shed.guest.connections import cut_all
from shed.guest.tasks import Event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.guest.freezer import Freezer
    from shed.guest.loop import Loop
    from shed.guest.state import State

_HOOKS = "/etc/shed/forked.d"
"""Programs that root has put there run, in the order of their names, once the shed is another."""
_HOOK_SECONDS = 10.0
"""For all of them together; the one that runs then is ended, and the others do not run."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


async def become(loop: Loop, shed: State, value: dict[str, object]) -> dict[str, object]:
    """Make this machine, which stands still, the shed that `value` describes, and have it go on.

    Raises `ValueError` before anything is touched, and `OSError`; then all still stand still.
    """
    request, freezer = _arrive(loop, shed, value)
    freezer.thaw_disk()
    identity.set_hostname(request.hostname)
    new = identity.settled_name("") != request.name  # one that goes back to an earlier moment stays who it is
    if new:
        identity.settle("", request.hostname, request.timezone)
    identity.renew_generation()
    shed.name, shed.env = request.name, request.env
    shed.folders = [folder for folder in (request.folder, request.workspace) if folder]
    shed.equip_later(lambda: configure.equip(loop, request))
    shed.equip()
    servers = identity.ssh_servers() if new and identity.needs_keys("") else []
    for pid in servers:  # nobody may see the host keys of the other shed
        os.kill(pid, _signal.SIGSTOP)
    freezer.thaw()
    shed.freezer, shed.phase = None, state.READY
    if new:
        shed.unsettled = True
        configure.finish_settling(loop, shed, lambda: _renew(servers))
    return {"hooks": await _run_hooks(loop)}


def wake(loop: Loop, shed: State, value: dict[str, object]) -> None:
    """Have this machine, which stands still, go on as the shed that it is, and that `value` describes.

    Raises `ValueError` before anything is touched, and `OSError`; then all still stand still.
    """
    request, _ = _arrive(loop, shed, value)
    shed.env = request.env
    shed.equip_later(lambda: configure.equip(loop, request))  # rules and secrets may be others by now
    shed.go_on()


def _arrive(loop: Loop, shed: State, value: dict[str, object]) -> tuple[Request, Freezer]:
    """Make this machine one of now and here; all still stand still.  Raises `ValueError`, `OSError`."""
    request, freezer = Request(value), shed.freezer
    if freezer is None:
        raise ValueError("this machine does not stand still")
    if request.clock is not None:
        syscalls.set_clock(request.clock)
    syscalls.add_entropy(request.entropy or os.urandom(32))
    cut_all(loop)
    return request, freezer


def _renew(servers: list[int]) -> None:
    """Have ssh servers read their new keys; see sshd(8)."""
    for pid in servers:
        try:
            os.kill(pid, _signal.SIGHUP)
            os.kill(pid, _signal.SIGCONT)
        except ProcessLookupError:
            pass


async def _run_hooks(loop: Loop) -> list[str]:
    """Run what root has put into the folder of hooks; return a sentence for each that did not succeed."""
    deadline = loop.now() + _HOOK_SECONDS
    failed = [words for path in _hooks() if (words := await _run_hook(loop, path, deadline - loop.now()))]
    for words in failed:
        loop.log(f"{_HOOKS}: {words}")
    return failed


async def _run_hook(loop: Loop, path: str, seconds: float) -> str:
    """Return what went wrong with a hook; empty when nothing did."""
    name = path.rpartition("/")[2]
    if seconds <= 0:
        return f"{name} did not run: those before it took too long"
    ended = Event()
    statuses: list[int] = []

    def over(status: int) -> None:
        statuses.append(status)
        ended.set()

    try:
        pid = os.posix_spawn(path, [path], {"PATH": _PATH}, setsid=True)  # noqa: ASYNC221  it does not wait for it
    except OSError as error:
        return f"{name} did not run: {error.strerror}"
    loop.on_exit(pid, over)
    if not await ended.wait(seconds):
        os.killpg(pid, _signal.SIGKILL)
        return f"{name} took too long and was ended"
    return f"{name} failed with status {os.waitstatus_to_exitcode(statuses[0])}" if statuses[0] else ""


def _hooks() -> list[str]:
    """Return the programs that nobody but root can have put there."""
    found = []
    try:
        if os.stat(_HOOKS).st_uid or os.stat(_HOOKS).st_mode & 0o022:
            return []
        names = sorted(os.listdir(_HOOKS))
    except OSError:
        return []
    for name in names:
        path = f"{_HOOKS}/{name}"
        try:
            status = os.stat(path)
        except OSError:
            continue
        if status.st_mode & 0o111 and not status.st_mode & 0o022 and not status.st_uid and os.path.isfile(path):
            found.append(path)
    return found
