"""The key by which clients know this server again: ed25519, made once, private, in the data folder."""

from __future__ import annotations

from pathlib import Path

from shed.fsutil import storage_errors
from shed.sshkeys import make_pair, read_public

_NAME = "ssh_host_ed25519_key"


def private_key(data: Path) -> bytes:
    """Return the private host key of the server with the data directory `data`; it is made when there is none.

    Takes a moment when asyncssh is imported for it.  Raises `DataError`, `StorageError`.
    """
    path = data / _NAME
    make_pair(path, "shed")
    with storage_errors(path):
        return path.read_bytes()


def public_key(data: Path) -> str:
    """Return the public key as a line for ``known_hosts``: ``ssh-ed25519 AAAA…``.

    Raises `DataError`, `StorageError`.
    """
    make_pair(data / _NAME, "shed")
    return str(read_public(data / _NAME))
