"""Who may come in by SSH: the list of public keys, as in OpenSSH's ``authorized_keys``."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import asyncssh

from shed.errors import UsageError


def read_keys(wanted: Path | tuple[str, ...]) -> asyncssh.SSHAuthorizedKeys:
    """Return the list that `wanted` holds, or the file of that name.  Raises `UsageError`, with what is wrong with it.

    A file that others can write to is none: whoever can add a key could let himself in.
    """
    try:
        if not isinstance(wanted, Path):
            return asyncssh.import_authorized_keys("\n".join(wanted))
        with wanted.open(encoding="utf-8") as file:
            about = os.fstat(file.fileno())
            if about.st_uid not in (0, os.geteuid()) or about.st_mode & stat.S_IWOTH:
                raise ValueError("others can write to it")
            return asyncssh.import_authorized_keys(file.read())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        what = wanted if isinstance(wanted, Path) else "ssh.authorized_keys"
        raise UsageError(f"nobody is let in by SSH: {what}: {reason}", hint="correct the list of keys") from None
