"""The key pair with which this user's clients log in by SSH.

It is ``~/.shed/id_ed25519``, has no passphrase, and is made at its first use.
"""

from __future__ import annotations

import getpass
import socket
from pathlib import Path

from shed.errors import UsageError
from shed.fsutil import storage_errors
from shed.sshkeys import PublicKey, make_pair, read_public


def default_identity() -> Path:
    """Return the path of the private key; it need not exist."""
    return Path("~/.shed/id_ed25519").expanduser()


def own_key(path: Path) -> PublicKey:
    """Return the public half of the private key `path`, which is made when it is not there.

    Raises `UsageError` for a folder in which others could exchange it, `DataError` for a key that others can read,
    `StorageError`.
    """
    with storage_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = path.parent.stat().st_mode
    if mode & 0o022:
        raise UsageError(f"others can write to {path.parent}, so no key can be there", hint=f"chmod go-w {path.parent}")
    make_pair(path, f"shed {_user()}@{socket.gethostname()}")
    return read_public(path)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user in passwd(5)
        return "user"
