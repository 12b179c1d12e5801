"""Messages to an SSH agent, as a client of it would make them, and as one would that means no good."""

from __future__ import annotations

from pathlib import Path

import asyncssh
from asyncssh.packet import Byte, String, UInt32

FAILURE, SUCCESS, SIGNED = 5, 6, 14
SESSION, OTHER_SESSION = b"\x11" * 32, b"\x22" * 32


class Key:
    """The key pair in a file, of a host or a user."""

    def __init__(self, path: Path) -> None:
        self._private = asyncssh.read_private_key(path)
        self.blob = self._private.public_data
        self.line = self._private.export_public_key().decode().strip()

    def sign(self, data: bytes) -> bytes:
        """Sign."""
        return self._private.sign(data, b"ssh-ed25519")


def bind(host: Key, session: bytes = SESSION, *, signer: Key | None = None, forwards: int = 0) -> bytes:
    """Say that `host` takes part in a session, by a signature of it, or of another `signer`."""
    signature = (signer or host).sign(session)
    name = String(b"session-bind@openssh.com")
    return Byte(27) + name + String(host.blob) + String(session) + String(signature) + Byte(forwards)


def login_data(user: Key, session: bytes = SESSION, *, name: str = "git", host: Key | None = None) -> bytes:
    """Return what is signed to log in, bound to the key of `host` if it is given."""
    method = b"publickey" if host is None else b"publickey-hostbound-v00@openssh.com"
    words = (name.encode(), b"ssh-connection", method)
    data = String(session) + Byte(50) + b"".join(map(String, words)) + Byte(1) + String(b"ssh-ed25519")
    return data + String(user.blob) + (b"" if host is None else String(host.blob))


def signature_data(namespace: bytes) -> bytes:
    """Return what is signed as `namespace` by ``ssh-keygen -Y sign``."""
    return b"SSHSIG" + b"".join(map(String, (namespace, b"", b"sha512", bytes(64))))


def sign(user: Key, data: bytes) -> bytes:
    """Ask for a signature of `data`."""
    return Byte(13) + String(user.blob) + String(data) + UInt32(0)
