"""Messages to an SSH agent, taken apart strictly: what a shed may ask for, and what its signature would be good for.

See draft-miller-ssh-agent and OpenSSH's PROTOCOL.agent, PROTOCOL.sshsig and PROTOCOL.  No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

from asyncssh.packet import Byte, PacketDecodeError, SSHPacket, String

MOST_REQUEST = 64 * 1024
"""Bytes of a message from a shed: several times what a login with a certificate takes."""
MOST_ANSWER = 256 * 1024
"""Bytes of an agent's answer, as for OpenSSH."""
FAILURE, SUCCESS = bytes([5]), bytes([6])
IDENTITIES, IDENTITIES_ANSWER, SIGN, SIGN_ANSWER, EXTENSION = 11, 12, 13, 14, 27
_BIND = b"session-bind@openssh.com"
_USERAUTH_REQUEST = 50
_SESSION_IDS = (20, 32, 48, 64)
"""Bytes of the hashes of which a session's name can be one."""
_COMMIT_MAGIC, _COMMIT_NAMESPACE = b"SSHSIG", b"git"


class MessageError(Exception):
    """A message that is not passed on; its text says why, in words of ours."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A program says with which host it has agreed on a session, and shows that host's signature of it."""

    host_key: bytes
    session: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Login:
    """A signature is asked for that logs `user` in, in one session with one host."""

    session: bytes
    user: str
    host_key: bytes | None
    """The host's key, where the data names it."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A signature of a commit or a tag is asked for."""


@dataclass(frozen=True, slots=True)
class List:
    """The public keys are asked for."""


Request = Binding | Login | Commit | List


def parse(message: bytes) -> Request:
    """Return what a message (without its length) asks for.

    Raises `MessageError` for all that a shed has no business with.
    """
    kind, body = message[:1], SSHPacket(message[1:])
    try:
        if kind == Byte(IDENTITIES):
            body.check_end()
            return List()
        if kind == Byte(SIGN):
            return _signing(body)
        if kind == Byte(EXTENSION) and body.get_string() == _BIND:
            return _binding(body)
    except PacketDecodeError:
        raise MessageError("it was asked in a form that nobody understands") from None
    raise MessageError("a shed may list keys and have them sign, nothing else")


def _binding(body: SSHPacket) -> Binding:
    binding = Binding(body.get_string(), body.get_string(), body.get_string())
    forwards = body.get_byte()
    body.check_end()
    if forwards:
        raise MessageError("it is not forwarded from the shed to another host")
    if len(binding.session) not in _SESSION_IDS:
        raise MessageError("it was asked in a form that nobody understands")
    return binding


def _signing(body: SSHPacket) -> Login | Commit:
    key, data = body.get_string(), body.get_string()
    body.get_uint32()  # which hash is to be used with an RSA key
    body.check_end()
    return _commit(data) if data.startswith(_COMMIT_MAGIC) else _login(key, SSHPacket(data))


def _login(key: bytes, data: SSHPacket) -> Login:
    """Read what is signed to log in: RFC 4252, section 7, or OpenSSH's publickey-hostbound-v00."""
    try:
        session = data.get_string()
        if data.get_byte() != _USERAUTH_REQUEST:
            raise PacketDecodeError
        user, service, method = data.get_string(), data.get_string(), data.get_string()
        has_signature, _algorithm, signer = data.get_byte(), data.get_string(), data.get_string()
        host_key = data.get_string() if method == b"publickey-hostbound-v00@openssh.com" else None
        data.check_end()
        name = user.decode()
    except (PacketDecodeError, UnicodeDecodeError):
        raise MessageError("the data to sign is neither a login nor a commit") from None
    if (service, has_signature, signer) != (b"ssh-connection", 1, key) or (host_key is None and method != b"publickey"):
        raise MessageError("the data to sign is neither a login nor a commit")
    return Login(session, name, host_key)


def _commit(data: bytes) -> Commit:
    rest = SSHPacket(data[len(_COMMIT_MAGIC) :])
    namespace, _reserved, _algorithm, _hash = (rest.get_string() for _ in range(4))
    rest.check_end()
    if namespace != _COMMIT_NAMESPACE:
        raise MessageError("it signs logins and git's commits, and no other data")
    return Commit()


def framed(message: bytes) -> bytes:
    """Return a message with its length before it."""
    return String(message)
