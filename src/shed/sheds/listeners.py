"""Who listens at a TCP port of this machine, as far as /proc tells this user."""

from __future__ import annotations

import contextlib
from pathlib import Path

_LISTEN = "0A"
"""TCP_LISTEN of the kernel's tcp_states.h."""


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
