"""How the supervisor gets the kernel's listener.

Imports next to nothing: the VM's start waits for this, and for no more.
"""

from __future__ import annotations

import _socket

LAUNCHER = 3
READY = b"R"


def take() -> tuple[int, int] | None:
    """Return the listener that the launcher sends, and the process that it is for, and acknowledge them.

    None when the launcher has given up.
    """
    launcher = _socket.socket(fileno=LAUNCHER)
    process, messages, _, _ = launcher.recvmsg(16, _socket.CMSG_SPACE(4))
    if not messages:
        return None
    launcher.sendall(READY)
    launcher.close()
    return int.from_bytes(messages[0][2][:4], "little"), int(process)  # of x86-64
