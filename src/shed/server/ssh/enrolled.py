"""The SSH keys that this server's user has enrolled: ``ssh_authorized_keys`` in the data directory, mode 0600.

A line reads ``TYPE BASE64 TIME COMMENT``.  Who may add one is the API's to say: a client of the Unix socket, which only
the server's user can open, may.  asyncssh is not needed here.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from shed.errors import ConflictError, DataError, NotFoundError
from shed.fsutil import atomic_write, locked, storage_errors
from shed.sshkeys import PublicKey

MOST_KEYS = 256
"""Most keys that are kept: each login reads them."""
_NAME = "ssh_authorized_keys"


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A key, and since when it is let in, RFC 3339."""

    key: PublicKey
    added_at: str

    def to_wire(self) -> dict[str, str]:
        """Return it as the API shows it."""
        key = self.key
        return {"fingerprint": key.fingerprint, "key": str(key), "comment": key.comment, "added_at": self.added_at}


def enrolled(data: Path) -> list[Enrolled]:
    """Return the keys that are kept in `data`.

    Raises `DataError` when others could have written them, `StorageError`.
    """
    path = data / _NAME
    try:
        with storage_errors(path), path.open(encoding="utf-8", errors="replace") as file:
            about = os.fstat(file.fileno())
            lines = file.read().splitlines()
    except FileNotFoundError:
        return []
    if about.st_uid not in (0, os.geteuid()) or stat.S_IMODE(about.st_mode) & 0o022:
        raise DataError(f"{path}: others can write to it", hint=f"look through it, then: chmod 600 {path}")
    return [_parse(line) for line in lines if line.strip()]


def enrol(data: Path, key: PublicKey) -> bool:
    """Let `key` in; return whether it was not before.

    Raises `ConflictError` when there are too many, and as `enrolled` does.
    """
    path = data / _NAME
    with locked(data / f".{_NAME}.lock"):
        known = enrolled(data)
        if any(str(one.key) == str(key) for one in known):
            return False
        if len(known) >= MOST_KEYS:
            raise ConflictError(
                f"{len(known)} keys are let in already", code="TOO_MANY_SSH_KEYS", hint="remove some: shed ssh-key list"
            )
        _write(path, [*known, Enrolled(key, datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"))])
    return True


def revoke(data: Path, fingerprint: str) -> Enrolled:
    """Let a key in no more, from the next connection on.  Raises `NotFoundError`, and as `enrolled` does."""
    path = data / _NAME
    with locked(data / f".{_NAME}.lock"):
        known = enrolled(data)
        for one in known:
            if one.key.fingerprint == fingerprint:
                _write(path, [other for other in known if other is not one])
                return one
    raise NotFoundError(
        f"no key {fingerprint[:60]!r} was let in", code="SSH_KEY_NOT_FOUND", hint="see: shed ssh-key list"
    )


def _parse(line: str) -> Enrolled:
    kind, data, added_at, *comment = [*line.split(None, 3), "", ""][:4]
    return Enrolled(PublicKey.parse(f"{kind} {data} {' '.join(comment)}"), added_at)


def _write(path: Path, keys: list[Enrolled]) -> None:
    lines = [f"{one.key} {one.added_at} {one.key.comment}".rstrip() + "\n" for one in keys]
    atomic_write(path, "".join(lines), mode=0o600)
