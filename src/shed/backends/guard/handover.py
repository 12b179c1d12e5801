"""How the supervisor gets the kernel's listener.

Imports next to nothing: the VM's start waits for this, and for no more.
"""

from __future__ import annotations

import _socket
import sys

LAUNCHER = 3
READY = b"R"


def take() -> tuple[int, int, list[str]] | None:
    """Return the listener that the launcher sends, the process that it is for, and folders, and acknowledge them.

    They are those in which git's settings and hooks are free, by their paths on the host: our arguments.

    None when the launcher has given up.
    """
    launcher = _socket.socket(fileno=LAUNCHER)
    process, messages, _, _ = launcher.recvmsg(16, _socket.CMSG_SPACE(4))
    if not messages:
        return None
    launcher.sendall(READY)
    launcher.close()
    return int.from_bytes(messages[0][2][:4], "little"), int(process), sys.argv[1:]  # of x86-64
