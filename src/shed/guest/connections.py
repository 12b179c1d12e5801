"""Ending the TCP connections that lead out of this machine: their other ends belong to another one."""

from __future__ import annotations

import _socket
from _struct import pack, unpack_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from shed.guest.loop import Loop

_SOCK_DIAG = 4
_BY_FAMILY, _DESTROY = 20, 21
"""Types of messages, linux/sock_diag.h."""
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
"""Flags of messages, linux/netlink.h."""
_ERROR, _DONE = 2, 3
_HEADER = "IHHII"
"""struct nlmsghdr."""
_TCP = 6
_STATES = sum(1 << state for state in (1, 2, 3, 4, 5, 8, 9, 11))
"""Those of a connection that is not over, net/tcp_states.h."""
_ID = slice(4, 52)
"""Where struct inet_diag_msg has the identity of a socket."""
_TO = slice(24, 40)
"""And in that, where it leads to."""
_LOOPBACK = ((_socket.AF_INET, b"\x7f"), (_socket.AF_INET6, bytes(15) + b"\x01"))
_SECONDS = 2.0
_MOST = 65536


def cut_all(loop: Loop) -> None:
    """Reset them.  What could not be done is said on the console: then they end when they are next used."""
    try:
        sock = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, _SOCK_DIAG)
        try:
            sock.settimeout(_SECONDS)
            for family, loopback in _LOOPBACK:
                request = pack("BBxxI", family, _TCP, _STATES)
                for found in list(_ask(sock, _BY_FAMILY, _DUMP, request + bytes(48))):
                    if not found[_TO].startswith(loopback):
                        list(_ask(sock, _DESTROY, _ACK, request + found[_ID]))
        finally:
            sock.close()
    except OSError as error:
        loop.log(f"connections are not cut: {error}")


def _ask(sock: _socket.socket, kind: int, flags: int, body: bytes) -> Iterator[bytes]:
    """Yield what the kernel answers.  Raises `OSError`, but not for a connection that has ended by itself."""
    sock.send(pack(_HEADER, 16 + len(body), kind, _REQUEST | flags, 0, 0) + body)
    while True:
        data = sock.recv(_MOST)
        while len(data) >= 16:
            size, answer, _, _, _ = unpack_from(_HEADER, data)
            payload, data = data[16:size], data[(size + 3) & ~3 :]
            if answer == _ERROR:
                (number,) = unpack_from("i", payload)
                if number not in {0, -2}:
                    raise OSError(-number, "the kernel does not end connections")
                return
            if answer == _DONE:
                return
            yield payload
