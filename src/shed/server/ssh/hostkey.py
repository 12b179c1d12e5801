"""The key by which clients know this server again: ed25519, made once, private, in the data folder."""

from __future__ import annotations

from pathlib import Path

from shed.errors import DataError
from shed.fsutil import atomic_write, locked, storage_errors

_NAME = "ssh_host_ed25519_key"
_ALGORITHM = "ssh-ed25519"


def private_key(data: Path) -> bytes:
    """Return the private key of the server with the data folder `data`, as OpenSSH writes it, and make it when there is none.

    Takes a moment when asyncssh is imported for it.  Raises `StorageError`.
    """
    path = data / _NAME
    with locked(data / f"{_NAME}.lock"):
        if not path.exists():
            _make(path)
    with storage_errors(path):
        return path.read_bytes()


def public_key(data: Path) -> str:
    """Return the public key as a line for ``known_hosts``: ``ssh-ed25519 AAAA…``.  Raises `DataError`, `StorageError`."""
    path = data / f"{_NAME}.pub"
    if not path.exists():
        import asyncssh  # noqa: PLC0415  only the first time, or after the file was lost

        key = asyncssh.import_private_key(private_key(data))
        atomic_write(path, key.export_public_key())
    words = path.read_text().split()
    if words[:1] != [_ALGORITHM] or len(words) < 2:
        raise DataError(f"{path} does not hold a key", hint="remove it: it is made again from the private one")
    return " ".join(words[:2])


def _make(path: Path) -> None:
    import asyncssh  # noqa: PLC0415  once in a server's life

    key = asyncssh.generate_private_key(_ALGORITHM, comment="shed")
    atomic_write(path, key.export_private_key(), mode=0o600)
