"""What the kernel says of an address: whether it is the host's own, by rtnetlink(7).

Asked for each connection, so that an address that the host got a moment ago counts, too, and so do whole networks that
are routed to the host itself.
"""

from __future__ import annotations

import ipaddress
import socket
import struct

from shed.egress.rules.addresses import Address, embedded

_RTM_GETROUTE, _NLM_F_REQUEST, _NLMSG_ERROR, _RTA_DST = 26, 1, 2, 1
_HEADER, _ROUTE, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BBBBBBBBI"), struct.Struct("=HH")
_TYPE = 7
"""Index of rtm_type in struct rtmsg."""
_UNICAST = 1
_NO_WAY = {101, 113, 22, 13, 97}
"""ENETUNREACH, EHOSTUNREACH, EINVAL (unreachable route), EACCES (prohibited), EAFNOSUPPORT: nothing is there."""


def is_own(address: Address) -> bool:
    """Say whether the host takes what is sent to `address` itself, as its own, a broadcast or a multicast."""
    return any(_is_own(one) for one in embedded(address))


def _is_own(address: Address) -> bool:
    family, bits = (socket.AF_INET, 32) if isinstance(address, ipaddress.IPv4Address) else (socket.AF_INET6, 128)
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + bits // 8, _RTA_DST) + address.packed
    route = _ROUTE.pack(family, bits, 0, 0, 0, 0, 0, 0, 0)
    size = _HEADER.size + len(route) + len(attribute)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(1.0)
        netlink.sendto(_HEADER.pack(size, _RTM_GETROUTE, _NLM_F_REQUEST, 1, 0) + route + attribute, (0, 0))
        answer = netlink.recv(65536)
    _, kind, _, _, _ = _HEADER.unpack_from(answer)
    if kind == _NLMSG_ERROR:
        (error,) = struct.unpack_from("=i", answer, _HEADER.size)
        return -error not in _NO_WAY  # what cannot be told counts as the host's
    return bool(_ROUTE.unpack_from(answer, _HEADER.size)[_TYPE] != _UNICAST)
