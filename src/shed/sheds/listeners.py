"""Listening at TCP ports of this machine, and who else does, as far as /proc tells this user."""

from __future__ import annotations

import contextlib
import errno
import socket
from pathlib import Path

from shed.sheds.portspec import Published

_BACKLOG = 512
_TRIES = 50
_NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
_LISTEN = "0A"
"""TCP_LISTEN of the kernel's tcp_states.h."""


def listen(one: Published) -> list[socket.socket]:
    """Return sockets that listen for `one`.  Raises `OSError`."""
    if one.address is not None:
        return [_bound(one.address, one.port)]
    first = _bound("127.0.0.1", one.port)
    try:
        return [first, _bound("::1", int(first.getsockname()[1]))]
    except OSError as error:
        if error.errno in _NOT_HERE:  # no IPv6 on this host
            return [first]
        first.close()
        raise


def listen_anywhere(one: Published, avoid: set[int]) -> list[socket.socket]:
    """Return sockets that listen for `one` at a free port that none of `avoid` is.  Raises `OSError`."""
    for _ in range(_TRIES):
        try:
            sockets = listen(one)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:  # by IPv6 alone it may be in use
                raise
            continue
        if sockets[0].getsockname()[1] not in avoid:
            return sockets
        for sock in sockets:
            sock.close()
    raise OSError(errno.EADDRINUSE, "no free port was found")


def _bound(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family, backlog=_BACKLOG)


def who_listens(port: int) -> str:
    """Say which program listens at `port`: ``process 812 (postgres)``, or ``another program``.  Blocks for a moment."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port)}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                if any(str(entry.readlink()) in wanted for entry in (process / "fd").iterdir()):
                    return f"process {process.name} ({(process / 'comm').read_text().strip()})"
    return "another program"


def _inodes(port: int) -> set[str]:
    found = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTEN and int(words[1].rpartition(":")[2], 16) == port:
                    found.add(words[9])
    return found
