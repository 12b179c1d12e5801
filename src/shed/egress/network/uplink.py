"""A way out of a VM's network namespace that no rule of a shed is asked about: for `--network nic`.

`shed.egress.network.uplink_keeper` says what is let out.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

from shed.egress.network.netns import NoNetworkError

_PROGRAM = Path(__file__).with_name("uplink_keeper.py")
_LOCK = "uplink.lock"
_SIOCGSKNS = 0x894C
"""linux/sockios.h: the network namespace of a socket."""
_TIMEOUT = 30.0
PATH = "/usr/sbin:/sbin:/usr/bin:/bin"


def problem() -> str:
    """Return why no shed of this host can have such a way out; empty when it can."""
    return "" if shutil.which("slirp4netns", path=PATH) else "the program slirp4netns is missing"


def start(inside: socket.socket, pid: int, folder: Path) -> None:
    """Give the namespace of the socket `inside` its way out, as long as the VMM `pid` runs, whose folder is `folder`.

    Does nothing when it has it.  Blocks for a tenth of a second.  Raises `NoNetworkError`.
    """
    try:
        namespace = fcntl.ioctl(inside, _SIOCGSKNS)
    except OSError as error:
        raise NoNetworkError(f"the network of a shed cannot be entered: {error.strerror}") from error
    try:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_PROGRAM), f"/proc/self/fd/{namespace}", str(pid), str(folder / _LOCK)],
            pass_fds=[namespace],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": PATH, "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
    finally:
        os.close(namespace)
    threading.Thread(target=child.wait, daemon=True).start()  # or it would stay as a zombie
    assert child.stdout is not None
    with child.stdout as told:
        if not select.select([told], [], [], _TIMEOUT)[0]:
            child.kill()
        said = told.readline().decode(errors="replace").strip()
    if said not in {"ready", "running"}:
        raise NoNetworkError(f"the network of a shed cannot be made: {said or 'its program has ended'}")
