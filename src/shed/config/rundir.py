"""Where the local server's socket is.  Apart from `paths`, and without pathlib, because every `shed exec` asks."""

from __future__ import annotations

import os


def run_dir() -> str:
    """Return the folder of sockets: ``SHED_RUNTIME_DIR``, else ``/run/shed`` for root, ``$XDG_RUNTIME_DIR/shed`` for everybody else."""
    chosen = os.environ.get("SHED_RUNTIME_DIR")
    if chosen:
        return os.path.abspath(chosen)  # noqa: PTH100  no pathlib here
    user = os.geteuid()
    if user == 0:
        return "/run/shed"
    base = os.environ.get("XDG_RUNTIME_DIR")
    return f"{base}/shed" if base else f"/tmp/shed-{user}"  # noqa: S108  made 0700 by the server; both sides check who owns it


def server_socket() -> str:
    """Return the path of the local server's Unix socket."""
    return run_dir() + "/shed.sock"
