"""Who is at the other end of a TCP connection: another machine, a user of this one, or the guest of a shed.

All clients of loopback have the same address, so limits by address would let one keep all others out.  The kernel knows
more: sock_diag(7) says to which user the other socket belongs, and its inode.  A guest's connections are made by its
QEMU, whose open files have that inode.
"""

from __future__ import annotations

import ipaddress
import os
import pwd
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence, port."""
_REQUEST = struct.Struct("=BBBBI")
"""The head of struct inet_diag_req_v2: family, protocol, extensions, padding, states."""
_SOCKET = struct.Struct(">HH16s16s")
"""struct inet_diag_sockid: ports and addresses of source and destination, in network order; interface and cookie
follow.
"""
_ANY_INTERFACE = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
_OWNER = struct.Struct("=II")
"""The end of struct inet_diag_msg: user, inode."""
_OWNER_AT = _HEADER.size + 4 + 48 + 12
_PREFIX = 64
"""Bits of an IPv6 address that a machine cannot choose by itself."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection."""

    key: str
    """Whom limits count together."""
    address: str
    """Its address and port."""

    def __str__(self) -> str:
        return self.address if self.key in self.address else f"{self.address} ({self.key})"


def peer_of(accepted: socket.socket, guests: Mapping[int, str] | None = None) -> Peer:
    """Return who is at the other end of `accepted`; `guests` are the names of sheds by the processes of their VMs."""
    try:
        theirs, ours = accepted.getpeername(), accepted.getsockname()
    except OSError:  # it has left already
        return Peer("nobody", "nobody")
    address = ipaddress.ip_address(theirs[0].partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    shown = f"[{address}]:{theirs[1]}" if address.version == 6 else f"{address}:{theirs[1]}"
    if not address.is_loopback:
        return Peer(
            str(ipaddress.ip_network((address, _PREFIX), strict=False)) if address.version == 6 else str(address), shown
        )
    owner = _owner(accepted.family, theirs, ours)
    if owner is None:
        return Peer("loopback", shown)
    user, inode = owner
    if guests and (name := _guest(inode, guests)) is not None:
        return Peer(f"the guest of shed {name}", shown)
    return Peer(f"user {_name(user)}", shown)


def _owner(family: int, theirs: tuple[str, int], ours: tuple[str, int]) -> tuple[int, int] | None:
    """Return user and inode of the socket at the other end; None when the kernel does not say."""
    addresses = [socket.inet_pton(family, end[0].partition("%")[0]) for end in (theirs, ours)]
    wanted = (
        _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF)
        + _SOCKET.pack(theirs[1], ours[1], *addresses)
        + _ANY_INTERFACE
    )
    header = _HEADER.pack(_HEADER.size + len(wanted), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as kernel:
            kernel.send(header + wanted)
            answer = kernel.recv(4096, socket.MSG_DONTWAIT)
    except OSError:
        return None
    if _HEADER.unpack_from(answer)[1] != _SOCK_DIAG_BY_FAMILY or len(answer) < _OWNER_AT + _OWNER.size:
        return None
    user, inode = _OWNER.unpack_from(answer, _OWNER_AT)
    return (int(user), int(inode)) if inode else None  # a closed socket has none, and is nobody's


def _guest(inode: int, guests: Mapping[int, str]) -> str | None:
    wanted = f"socket:[{inode}]"
    for process, name in guests.items():
        try:
            with os.scandir(f"/proc/{process}/fd") as files:
                if any(os.readlink(file.path) == wanted for file in files):  # noqa: PTH115  hundreds, for each connection
                    return name
        except OSError:  # it has ended, or is not ours to look at
            continue
    return None


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)
