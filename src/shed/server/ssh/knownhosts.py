"""The keys of hosts, as the user who runs the server has accepted them: OpenSSH's known_hosts files."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import asyncssh
from asyncssh.packet import PacketDecodeError, SSHPacket
from asyncssh.public_key import CERT_TYPE_HOST, SSHOpenSSHCertificate, decode_ssh_certificate, decode_ssh_public_key

from shed.errors import UsageError
from shed.server.ssh.keys import trusted_text
from shed.sheds.agentrule import AgentHost, AgentRule

_SIGNATURES = (
    b"ssh-ed25519",
    b"ecdsa-sha2-nistp256",
    b"ecdsa-sha2-nistp384",
    b"ecdsa-sha2-nistp521",
    b"rsa-sha2-256",
    b"rsa-sha2-512",
)
"""Kinds of signatures that are believed."""
_NO_KEY = (ValueError, OverflowError, PacketDecodeError)
"""What asyncssh raises for what is no key, or no signature; the second for negative numbers in one."""
_CERTIFICATE = b"-cert-v01@openssh.com"


def usual_files() -> tuple[Path, ...]:
    """Return where OpenSSH's client looks for the keys of hosts."""
    home = Path.home() / ".ssh"
    system = Path("/etc/ssh")
    return home / "known_hosts", home / "known_hosts2", system / "ssh_known_hosts", system / "ssh_known_hosts2"


class KnownHosts:
    """The hosts that `files` know.  They are read again when they have changed.  All of it blocks for a moment."""

    def __init__(self, files: Sequence[Path] | None = None) -> None:
        self._files = usual_files() if files is None else tuple(files)
        self._read: tuple[object, asyncssh.SSHKnownHosts] | None = None

    def knows(self, host: AgentHost) -> bool:
        """Say whether any key of a host is known.  Raises `UsageError` for a file that cannot be used."""
        keys, authorities, _ = self._keys(host)
        return bool(keys or authorities)

    def is_key_of(self, host: AgentHost, blob: bytes) -> bool:
        """Say whether `blob` is a key of a host, or its certificate.  Raises `UsageError` as `knows` does."""
        keys, authorities, revoked = self._keys(host)
        if not _is_certificate(blob):
            return blob in {key.public_data for key in keys} - {key.public_data for key in revoked}
        try:
            certificate = decode_ssh_certificate(blob)
            assert isinstance(certificate, SSHOpenSSHCertificate)
            certificate.validate(CERT_TYPE_HOST, host.name)
        except _NO_KEY:
            return False
        struck_off = any(key in revoked for key in (certificate.key, certificate.signing_key))
        return certificate.signing_key in authorities and host.name in certificate.principals and not struck_off

    def _keys(self, host: AgentHost) -> tuple[list[asyncssh.SSHKey], list[asyncssh.SSHKey], list[asyncssh.SSHKey]]:
        """Return keys, keys of authorities, and revoked keys."""
        keys, authorities, revoked, *_ = self._load().match(host.name, "", host.port)
        return list(keys), list(authorities), list(revoked)

    def _load(self) -> asyncssh.SSHKnownHosts:
        state = tuple(_state(path) for path in self._files)
        if self._read is not None and self._read[0] == state:
            return self._read[1]
        known = asyncssh.SSHKnownHosts()
        for path in self._files:
            try:
                lines = trusted_text(path).splitlines()
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                why = error.strerror if isinstance(error, OSError) else str(error)
                raise UsageError(f"{path} says nothing about hosts: {why}", hint="correct the file") from None
            for line in lines:
                _add(known, line, path)
        self._read = (state, known)
        return known


def strangers(words: Sequence[str]) -> list[str]:
    """Return sentences about hosts of a rule of which no key is known on this machine."""
    known = KnownHosts()
    try:
        return [unknown(host) for host in AgentRule.parse(words).hosts if not known.knows(host)]
    except UsageError as error:
        return [error.message]


def unknown(host: AgentHost) -> str:
    """Return what there is to say of a host whose keys are not known."""
    port = f" -p {host.port}" if host.port else ""
    return f"the server knows no key of {host.name}: as its user, on its machine, run once: ssh{port} {host.name}"


def is_signature(blob: bytes, data: bytes, signature: bytes) -> bool:
    """Say whether `signature` is one of `data` by the key, or by the key in the certificate, `blob`."""
    try:
        key = decode_ssh_certificate(blob).key if _is_certificate(blob) else decode_ssh_public_key(blob)
        kind = SSHPacket(signature).get_string()
        return kind in _SIGNATURES and key.verify(data, signature)
    except _NO_KEY:
        return False


def _is_certificate(blob: bytes) -> bool:
    with contextlib.suppress(PacketDecodeError):
        return SSHPacket(blob).get_string().endswith(_CERTIFICATE)
    return False


def _add(known: asyncssh.SSHKnownHosts, line: str, path: Path) -> None:
    """Add a line, as OpenSSH would: one that makes no sense says nothing, unless it may say what is not to be used."""
    try:
        known.load(line)
    except ValueError:
        if line.lstrip().startswith("@"):
            raise UsageError(f"{path} has a line that makes no sense: {line[:80]!r}", hint="correct it") from None


def _state(path: Path) -> object:
    with contextlib.suppress(OSError):
        about = path.stat()
        return about.st_ino, about.st_size, about.st_mtime_ns, about.st_mode, about.st_uid
    return None
