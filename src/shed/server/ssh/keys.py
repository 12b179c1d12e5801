"""Who may come in by SSH: the keys that the configuration lists, and those that were enrolled."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import asyncssh

from shed.errors import DataError, StorageError, UsageError
from shed.server.ssh.enrolled import enrolled


def read_keys(wanted: Path | tuple[str, ...] | None, data: Path) -> asyncssh.SSHAuthorizedKeys:
    """Return the keys of `wanted`, a list or the file of one, and those enrolled in the data folder `data`.

    A key that `wanted` names has the options that it has there, enrolled or not.  Raises `UsageError` with what is
    wrong: then nobody is let in, for a restriction may be what cannot be read.  A file that others can write to is
    wrong: they could let themselves in.
    """
    what: object = wanted if isinstance(wanted, Path) else "ssh.authorized_keys"
    try:
        keys = asyncssh.SSHAuthorizedKeys()
        named: set[str] = set()
        if wanted is not None:
            text = trusted_text(wanted) if isinstance(wanted, Path) else "\n".join(wanted)
            keys.load(text)
            named = {word for line in text.splitlines() if not line.lstrip().startswith("#") for word in line.split()}
        what = "the enrolled keys"
        more = [str(one.key) for one in enrolled(data) if one.key.data not in named]
        if more:
            keys.load("\n".join(more))
    except (OSError, ValueError, DataError, StorageError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"nobody is let in by SSH: {what}: {reason}", hint="correct the list of keys") from None
    return keys


def trusted_text(path: Path) -> str:
    """Return what is in a file.  Raises `OSError`, and `ValueError` when others can write to it."""
    with path.open(encoding="utf-8") as file:
        about = os.fstat(file.fileno())
        if about.st_uid not in (0, os.geteuid()) or about.st_mode & stat.S_IWOTH:
            raise ValueError("others can write to it")
        return file.read()
