"""Launchers: processes that become VMMs.  One waits for orders before anybody needs it.

Most of what a launcher takes until it can read its orders is Python's own start and a few modules: as long as a tenth
of a warm start.  So the next one is started after a VM was.  It waits at a socket and ends with the server.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import sys
from pathlib import Path

from shed.backends.jail import plan
from shed.backends.jail.descriptors import PARENT, SAFE_FD
from shed.inwaiting import Spare

_PROGRAM = Path(plan.__file__).parent


class Launcher:
    """A process that waits for its orders: a child of ours, which somebody has to wait for."""

    __slots__ = ("pid", "socket")

    def __init__(self, errors: int | None = None) -> None:
        """Start it; it writes to the descriptor `errors` when it cannot start.  Raises `OSError`."""
        self.socket, theirs = socket.socketpair()
        wanted = {PARENT: theirs.fileno(), **({} if errors is None else {2: errors})}
        with theirs:
            high = {target: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, SAFE_FD) for target, fd in wanted.items()}
        try:
            self.pid = _spawn(high)
        except OSError:
            self.socket.close()
            raise
        finally:
            for descriptor in high.values():
                os.close(descriptor)

    def lives(self) -> bool:
        """Tell whether it still waits."""
        return os.waitpid(self.pid, os.WNOHANG) == (0, 0)


def command_line() -> list[str]:
    """Return the words of a launcher, and of what comes of it until that is the VMM."""
    return [sys.executable, "-I", "-S", str(_PROGRAM)]


def _spawn(descriptors: dict[int, int]) -> int:
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        *((os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)),
        *((os.POSIX_SPAWN_DUP2, descriptor, target) for target, descriptor in descriptors.items()),
    ]
    words = command_line()
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
    defaults = [signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    return os.posix_spawn(
        words[0], words, environment, file_actions=actions, setsid=True, setsigdef=defaults, setsigmask=[]
    )


_spare: Spare[Launcher] = Spare()


def take(errors: int) -> Launcher:
    """Return a launcher without orders; a new one writes to the descriptor `errors` when it cannot start.

    Raises `OSError`.
    """
    launcher = _spare.swap(None)
    if launcher is not None:
        if launcher.lives():
            return launcher
        launcher.socket.close()
    return Launcher(errors)


def prepare() -> None:
    """Have one in waiting; where none can be started, the next VM starts its own, or says why not."""
    with contextlib.suppress(OSError):
        _spare.put(Launcher())
