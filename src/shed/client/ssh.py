"""Servers on other machines, through the user's own ssh: its keys, its agent, its ``~/.ssh/config``.

Each connection is one ``ssh HOST shed server dial-stdio``, at the other end of a pair of sockets; ControlMaster in the
user's configuration makes the second one quick.
"""

from __future__ import annotations

import _socket
import atexit
import socket
import subprocess

from shed.client.address import Address
from shed.errors import UnavailableError

REMOTE = ("shed", "server", "dial-stdio")
"""What runs at the other end: see `shed.cli.dial`."""
_running: list[subprocess.Popen[bytes]] = []


def dial(address: Address) -> _socket.socket:
    """Return a socket that leads to the server of another machine.  Raises `UnavailableError` without ssh.

    What ssh says is on stderr.
    """
    assert address.ssh is not None
    _running[:] = [process for process in _running if process.poll() is None]
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = subprocess.Popen(
                ["ssh", "-T", *address.ssh, *REMOTE], stdin=theirs.fileno(), stdout=theirs.fileno()
            )
        except FileNotFoundError:
            ours.close()
            raise UnavailableError(f"{address} needs ssh, which is not here", hint="install openssh-client") from None
    _running.append(process)
    return _socket.socket(fileno=ours.detach())


@atexit.register
def _leave() -> None:
    """End what still runs.

    When the other end hangs, ssh would wait for it, and keep the user's terminal or pipe open.
    """
    for process in _running:
        process.terminate()
