"""SSH keys in the form of OpenSSH: public keys as lines, and key pairs as files that are made at their first use."""

from __future__ import annotations

import base64
import binascii
import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path

from shed.errors import DataError
from shed.fsutil import atomic_write, locked, storage_errors

ALGORITHM = "ssh-ed25519"
_LONGEST_COMMENT = 100


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key.  `kind` and `data` are the first two words of its line."""

    kind: str
    data: str
    comment: str = ""
    """Its owner's name for it, in printable characters."""

    @classmethod
    def parse(cls, line: str) -> PublicKey:
        """Return the key of a line ``TYPE BASE64 COMMENT``.

        Raises `DataError` for all else, also for a key with options.
        """
        words = line.split(None, 2)
        try:
            blob = base64.b64decode(words[1], validate=True)
            length = int.from_bytes(blob[:4], "big")
            if blob[4 : 4 + length] == words[0].encode() and len(blob) > 4 + length:
                comment = "".join(character for character in "".join(words[2:]) if character.isprintable())
                return cls(words[0], words[1], comment[:_LONGEST_COMMENT].strip())
        except (IndexError, binascii.Error, ValueError):
            pass
        raise DataError(f"{line[:80]!r} is not a public key", hint=f"it should read: {ALGORITHM} AAAA…")

    @property
    def fingerprint(self) -> str:
        """The fingerprint as OpenSSH shows it, for example with ``ssh-keygen -l``: ``SHA256:…``."""
        return fingerprint(base64.b64decode(self.data))

    def __str__(self) -> str:
        return f"{self.kind} {self.data}"


def fingerprint(blob: bytes) -> str:
    """Return the fingerprint of a public key in the form of the SSH protocol."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def make_pair(path: Path, comment: str) -> None:
    """Make the private key `path`, with mode 0600, and the public key ``path.pub``, if they do not exist.

    Several processes may do so at the same time.  Making a key takes a moment, as asyncssh is imported for it.  Raises
    `DataError` for a private key that others can read, and `StorageError`.
    """
    public = _public(path)
    with locked(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            import asyncssh  # noqa: PLC0415  once for each key

            key = asyncssh.generate_private_key(ALGORITHM, comment=comment)
            public.unlink(missing_ok=True)
            atomic_write(path, key.export_private_key(), mode=0o600)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise DataError(
                f"others can read the private key {path}",
                hint=f"chmod 600 {path}; or remove it, and another one is made",
            )
        if not public.exists():
            import asyncssh  # noqa: PLC0415  as above

            with storage_errors(path):
                text = path.read_bytes()
            try:
                key = asyncssh.import_private_key(text)
            except ValueError as error:
                raise DataError(f"{path}: {error}", hint="remove it, and another one is made; or mend it") from None
            atomic_write(public, key.export_public_key())


def read_public(path: Path) -> PublicKey:
    """Return the public key of the pair `path`, which `make_pair` made.  Raises `DataError` and `StorageError`."""
    public = _public(path)
    with storage_errors(public):
        text = public.read_text(encoding="utf-8", errors="replace")
    try:
        return PublicKey.parse(text)
    except DataError:
        raise DataError(
            f"{public} does not hold a key", hint="remove it: it is made again from the private one"
        ) from None


def _public(path: Path) -> Path:
    return path.with_name(f"{path.name}.pub")
