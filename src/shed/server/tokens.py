"""The tokens that clients of the TCP port show: made by whom the server belongs to, kept as hashes.

``DATA/tokens.json`` holds name, right, hash and end of each token.  A token's secret never comes here: the client that
makes one sends its hash.  The one exception is the server's own, ``local``: ``DATA/token`` holds it, so that programs
of the same user find it. While a server listens, ``RUN/tokens`` says by which address it is reached with that token,
for the client of the same user.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shed.api.access import Right
from shed.errors import ConflictError, DataError, NotFoundError, UsageError
from shed.fsutil import atomic_write, storage_errors
from shed.names import LOCAL, check_token_name
from shed.server.caller import Caller

PREFIX = "shed_"
"""What each secret begins with, so that people and scanners know one when they see it."""
MAX_TOKENS = 1000
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Token:
    """One token, without its secret."""

    name: str
    right: str
    sha256: str
    """Of the secret, in hexadecimal digits."""
    created_at: str
    expires_at: float | None = None
    """Seconds since the epoch."""

    def to_wire(self) -> dict[str, object]:
        """Return what the API shows of it."""
        ends = (
            None
            if self.expires_at is None
            else datetime.fromtimestamp(self.expires_at, UTC).isoformat(timespec="seconds")
        )
        return {"name": self.name, "right": self.right, "created_at": self.created_at, "expires_at": ends}


class Tokens:
    """The tokens of the server whose data is in the folder `data`.  Raises `DataError` when their file is damaged."""

    def __init__(self, data: Path) -> None:
        self._file = data / "tokens.json"
        self._own = data / "token"
        self._tokens = {token.name: token for token in _read(self._file)}
        self._local: Token | None = None
        self._lock = threading.Lock()
        self.when_removed: Callable[[str], None] = lambda name: None
        """Called, in whatever thread, with the name of a token that has just been revoked."""

    def own(self) -> str:
        """Return the secret of the server's own token, which is made the first time.  From now on it is a valid one.

        Raises `DataError` when others may read its file.
        """
        with storage_errors(self._own):
            if not self._own.exists():
                atomic_write(self._own, PREFIX + secrets.token_urlsafe(32) + "\n", mode=0o600)
            mode = self._own.stat().st_mode
            secret = self._own.read_text().strip()
        if stat.S_IMODE(mode) & 0o077 or len(secret) < 32:
            hint = "remove it: the server makes another one when it starts"
            raise DataError(f"{self._own} may be known to others, or holds no token", hint=hint)
        self._local = Token(LOCAL, Right.ADMIN.word, _hash(secret), _now())
        return secret

    def caller(self, secret: str) -> Caller | None:
        """Return whose secret it is; None when it is nobody's, or its time is over."""
        wanted, found = _hash(secret), None
        for token in (*self._tokens.values(), *((self._local,) if self._local else ())):
            if hmac.compare_digest(token.sha256, wanted):
                found = token
        if found is None or (found.expires_at is not None and found.expires_at <= time.time()):
            return None
        return Caller("token", found.name, Right.parse(found.right), expires_at=found.expires_at)

    def all(self) -> list[Token]:
        """Return all tokens but the server's own, by name."""
        return sorted(self._tokens.values(), key=lambda token: token.name)

    def add(self, name: str, right: Right, sha256: str, lifetime: float | None = None) -> Token:
        """Keep a token that is valid for `lifetime` seconds, for ever without.

        Raises `UsageError`, `ConflictError`, `StorageError`.
        """
        check_token_name(name)
        if not _HASH.fullmatch(sha256):
            raise UsageError(
                "sha256 must be the hash of the token's secret: 64 hexadecimal digits", hint="use: shed token create"
            )
        with self._lock:
            if name in self._tokens:
                hint = f"choose another name, or revoke it first: shed token revoke {name}"
                raise ConflictError(f"there is a token {name!r} already", code="TOKEN_EXISTS", hint=hint)
            if len(self._tokens) >= MAX_TOKENS:
                raise ConflictError(
                    f"there are {MAX_TOKENS} tokens already", hint="revoke those that nobody needs: shed token list"
                )
            token = Token(name, right.word, sha256, _now(), None if lifetime is None else time.time() + lifetime)
            self._save({**self._tokens, name: token})
        return token

    def remove(self, name: str) -> None:
        """Have a token be nobody's from now on.  Raises `NotFoundError`, `StorageError`."""
        with self._lock:
            if name not in self._tokens:
                raise NotFoundError(f"there is no token {name!r}", code="TOKEN_NOT_FOUND", hint="see: shed token list")
            self._save({other: token for other, token in self._tokens.items() if other != name})
        self.when_removed(name)

    def _save(self, tokens: dict[str, Token]) -> None:
        text = json.dumps({"tokens": [asdict(token) for token in tokens.values()]}, indent=1) + "\n"
        atomic_write(self._file, text, mode=0o600)
        self._tokens = tokens


def _read(path: Path) -> list[Token]:
    try:
        with storage_errors(path):
            text = path.read_text()
    except FileNotFoundError:
        return []
    try:
        return [_token(entry) for entry in json.loads(text)["tokens"]]
    except (ValueError, TypeError, KeyError, RecursionError, UsageError) as error:
        hint = "repair it, or move it away: then no token is valid, and you make new ones"
        raise DataError(f"{path} is damaged: {error}", hint=hint) from None


def _token(entry: dict[str, Any]) -> Token:
    token = Token(**entry)
    check_token_name(token.name)
    Right.parse(token.right)
    if not _HASH.fullmatch(token.sha256) or not isinstance(token.created_at, str):
        raise ValueError(f"the token {token.name!r} makes no sense")
    if token.expires_at is not None and not isinstance(token.expires_at, int | float):
        raise ValueError(f"the token {token.name!r} ends at no time")
    return token


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
