"""Makes the network namespace that a shed's card leads into, and that has no way out.

Run as ``python -I -S netns_setup.py`` with a socket to the parent as descriptor 3.  The answer is one message: ``R``
with four descriptors (the TAP for the VMM, the relay's listener, the name service's UDP socket and its TCP listener),
or a JSON object with ``step``, ``errno`` and ``why``.  The namespace lives as long as somebody has one of the
descriptors open; no process has to stay in it.

In it there is one card, the other end of the shed's; no way out of it, no forwarding, no IPv6.  The kernel hands
every TCP connection that comes in by the card to the relay's listener, whatever its destination (the relay asks for
that with SO_ORIGINAL_DST), and what goes to port 53 to the name service.  It answers pings of the gateway, and drops
all else.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys

GATEWAY, SHED, PREFIX = "10.0.2.2", "10.0.2.15", 24
"""Its only address, the shed's gateway and name server; and the only one from which it takes anything."""
PORT = 1
"""TCP port of the relay's listener; whoever connects to it by number is redirected like everybody."""
_PARENT = 3
_CARD = "shed0"
_BACKLOG = 1024
_MTU = 1500
_FIRST = 64 << 10
"""Bytes, as much as a guest has room for at first.  With fewer, TCP sends what each answer of the guest makes room for,
two or three packets at a time, and a card takes its time for each.
"""
_QUEUE, _LARGEST = 2000, 32 << 10
"""Packets that wait until the VMM takes them, and the bytes of one.  What does not fit is lost: with the 500 that a TAP
has by itself, two hundred downloads at once lost twenty packets each, and took twice as long.  A guest that takes none
can have the host keep their product, 64 MB.
"""
_MOST_FLOWS = 4096
"""Connections, half-open ones included, that the kernel keeps for one shed."""
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCSIFFLAGS, _SIOCGIFFLAGS = 0x8916, 0x891C, 0x8914, 0x8913
_UP = 0x1
_RTM_NEWLINK, _RTM_NEWROUTE, _NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_REPLACE, _NLMSG_ERROR = 16, 24, 0x1, 0x4, 0x100, 2
_IFLA_TXQLEN, _IFLA_GSO_MAX_SIZE = 13, 41
"""linux/if_link.h.  The ioctl for the first one is for root of the host alone."""
_RT_TABLE_MAIN, _RTPROT_KERNEL, _RT_SCOPE_LINK = 254, 2, 253
_RTA_DST, _RTA_OIF, _RTA_PREFSRC, _RTA_METRICS, _RTAX_INITCWND = 1, 4, 7, 8, 11
"""linux/rtnetlink.h."""

RULES = f"""
table netdev shed {{
    chain arrive {{
        type filter hook ingress device "{_CARD}" priority filter; policy drop
        arp saddr ip {SHED} accept
        ip saddr {SHED} ip frag-off & 0x3fff == 0 ip protocol {{ tcp, udp, icmp }} accept
    }}
}}
table ip shed {{
    chain arrive {{
        type nat hook prerouting priority dstnat
        iifname "{_CARD}" udp dport 53 redirect to :53
        iifname "{_CARD}" tcp dport 53 redirect to :53
        iifname "{_CARD}" meta l4proto tcp redirect to :{PORT}
    }}
    chain count {{
        type filter hook prerouting priority -150
        ct state new ct count over {_MOST_FLOWS} drop
    }}
    chain input {{
        type filter hook input priority filter; policy drop
        iifname "{_CARD}" tcp dport {{ 53, {PORT} }} accept
        iifname "{_CARD}" udp dport 53 accept
        iifname "{_CARD}" ip daddr {GATEWAY} icmp type echo-request accept
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop
    }}
    chain output {{
        type filter hook output priority filter; policy drop
        oifname "{_CARD}" ct state established,related accept
    }}
}}
"""
"""In the syntax of nft(8).  The first chain comes before all other code of the kernel: what it drops is never put
together from fragments, and takes no entry of the neighbour table, which all of the host has in common.  `output` lets
out only what belongs to a connection that the shed began.
"""

_MEMORY = "4096 131072 1048576"
"""Bytes of a socket's buffers, at least, at first, and at most: the host has one limit for all TCP, and a shed could
fill a thousand buffers.
"""
_SETTINGS = {
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
    "net/ipv4/conf/all/accept_redirects": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/all/arp_ignore": "1",
    "net/ipv4/ip_forward": "0",
    "net/ipv4/tcp_syncookies": "1",
    "net/ipv4/tcp_rmem": _MEMORY,
    "net/ipv4/tcp_wmem": _MEMORY,
    "net/ipv4/tcp_min_snd_mss": "536",
    "net/netfilter/nf_conntrack_udp_timeout": "12",  # a query's answer comes within ten
    "net/netfilter/nf_conntrack_udp_timeout_stream": "12",
    "net/netfilter/nf_conntrack_tcp_timeout_syn_recv": "20",
    "net/netfilter/nf_conntrack_tcp_timeout_established": "86400",
}


class _StepError(Exception):
    """A step that failed, by name, and why."""

    def __init__(self, step: str, error: int, why: str) -> None:
        super().__init__(why)
        self.answer = {"step": step, "errno": error, "why": why}


def _enter() -> None:
    """Enter a user namespace of our own, and a network namespace that belongs to it."""
    uid, gid = os.geteuid(), os.getegid()
    flags = _CLONE_NEWUSER | _CLONE_NEWNET
    if hasattr(os, "unshare"):  # Python 3.12
        os.unshare(flags)
    else:
        import ctypes  # noqa: PLC0415  costs 15 ms, and goes with Python 3.11

        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(flags):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    for file, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{file}", "w") as stream:
            stream.write(text)


def _open_card() -> int:
    """Return the descriptor of a TAP called `_CARD` in this namespace, which goes when it is closed."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    request = struct.pack("16sH22x", _CARD.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
    fcntl.ioctl(tap, _TUNSETIFF, request)
    return tap


def _set_up_card() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        name = _CARD.encode()
        mask = (0xFFFFFFFF << (32 - PREFIX) & 0xFFFFFFFF).to_bytes(4, "big")
        for request, address in ((_SIOCSIFADDR, socket.inet_aton(GATEWAY)), (_SIOCSIFNETMASK, mask)):
            fcntl.ioctl(sock, request, struct.pack("16sHH4s16x", name, socket.AF_INET, 0, address))
        flags = struct.unpack_from("16sH", fcntl.ioctl(sock, _SIOCGIFFLAGS, struct.pack("16sH22x", name, 0)))[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH22x", name, flags | _UP))


def _set_queue() -> None:
    """Set `_QUEUE` and `_LARGEST`, and have each connection begin with `_FIRST` bytes on their way to the shed."""
    card = socket.if_nametoindex(_CARD)
    link = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, card, 0, 0)
    _ask_kernel(_RTM_NEWLINK, 0, link + _number(_IFLA_TXQLEN, _QUEUE) + _number(_IFLA_GSO_MAX_SIZE, _LARGEST))
    route = struct.pack("=8BI", socket.AF_INET, PREFIX, 0, 0, _RT_TABLE_MAIN, _RTPROT_KERNEL, _RT_SCOPE_LINK, 1, 0)
    gateway = socket.inet_aton(GATEWAY)
    route += _attribute(_RTA_DST, gateway[:3] + b"\0") + _attribute(_RTA_PREFSRC, gateway) + _number(_RTA_OIF, card)
    route += _attribute(_RTA_METRICS, _number(_RTAX_INITCWND, _FIRST // (_MTU - 52)))
    _ask_kernel(_RTM_NEWROUTE, _NLM_F_REPLACE, route)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _ask_kernel(kind: int, flags: int, message: bytes) -> None:
    """Change something by rtnetlink(7).  Raises `OSError`."""
    head = struct.pack("=IHHII", 16 + len(message), kind, _NLM_F_REQUEST | _NLM_F_ACK | flags, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.sendto(head + message, (0, 0))
        answer = netlink.recv(65536)
    kind, error = struct.unpack_from("=4xH10xi", answer)
    if kind != _NLMSG_ERROR or error:
        raise OSError(-error, os.strerror(-error))


def _set_settings() -> None:
    for name, value in _SETTINGS.items():
        try:
            with open(f"/proc/sys/{name}", "w") as stream:
                stream.write(value)
        except FileNotFoundError:
            if "ipv6" not in name:  # a kernel without IPv6 has nothing to switch off
                raise


def _set_rules() -> None:
    try:
        done = subprocess.run(
            ["nft", "-f", "-"], input=RULES.encode(), capture_output=True, timeout=20, check=False
        )  # fmt: skip
    except FileNotFoundError as error:
        raise _StepError("nft", error.errno or 0, "the program nft is missing") from None
    if done.returncode:
        raise _StepError("nft", 0, done.stderr.decode(errors="replace").strip().partition("\n")[0])


def _sockets() -> list[socket.socket]:
    """Return the relay's listener, the name service's UDP socket, and its TCP listener."""
    relay, names = socket.socket(), socket.socket()
    for listener, port in ((relay, PORT), (names, 53)):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", port))  # of this namespace alone
        listener.listen(_BACKLOG)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("", 53))
    return [relay, udp, names]


def _make() -> list[int]:
    steps: list[int] = []
    sockets: list[socket.socket] = []
    for name, step in (
        ("namespace", _enter),
        ("card", lambda: steps.append(_open_card())),
        ("address", _set_up_card),
        ("queue", _set_queue),
        ("nft", _set_rules),
        ("settings", _set_settings),
        ("sockets", lambda: sockets.extend(_sockets())),
    ):
        try:
            step()
        except OSError as error:
            raise _StepError(name, error.errno or 0, str(error)) from error
    return [*steps, *(sock.detach() for sock in sockets)]


def _main() -> None:
    with socket.socket(fileno=_PARENT) as parent:
        os.set_inheritable(_PARENT, False)
        try:
            descriptors = _make()
        except _StepError as error:
            import json  # noqa: PLC0415  for failures only

            parent.sendall(json.dumps(error.answer).encode())
            return
        socket.send_fds(parent, [b"R"], descriptors)


if __name__ == "__main__":
    sys.path[:] = [entry for entry in sys.path if entry != os.path.dirname(os.path.abspath(__file__))]  # noqa: PTH100, PTH120
    _main()
