"""How the supervisor gets the kernel's listener.

Imports next to nothing: the VM's start waits for this, and for no more.
"""

from __future__ import annotations

import _socket

LAUNCHER = 3
READY = b"R"


def take() -> int | None:
    """Return the listener that the launcher sends, and acknowledge it; None when the launcher has given up."""
    launcher = _socket.socket(fileno=LAUNCHER)
    _, messages, _, _ = launcher.recvmsg(1, _socket.CMSG_SPACE(4))
    if not messages:
        return None
    launcher.sendall(READY)
    launcher.close()
    return int.from_bytes(messages[0][2][:4], "little")  # of x86-64
