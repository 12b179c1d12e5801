"""The network: address, default route and name service.

They are set with the classic ioctls, so no program of the image is needed.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import time
from _struct import pack

from shed.guest.configure import steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.guest.configure.request import Network

_SIOCADDRT, _SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCSIFHWADDR = 0x890B, 0x8914, 0x8916, 0x891C, 0x8924
"""ioctls, linux/sockios.h."""
_ARPHRD_ETHER = 1
_UP_AND_RUNNING = 0x1 | 0x40
_RTF_UP_GATEWAY = 0x1 | 0x2
_CARD_SECONDS = 2.0
_NET = "/sys/class/net"


def set_up(network: Network | None) -> None:
    """Bring up the loopback and, with `network`, the first virtio card.  Raises `OSError`.

    `TimeoutError` when there is no card.
    """
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        _set_flags(sock, "lo")
        if network is None:
            return
        deadline = time.monotonic() + _CARD_SECONDS
        while True:
            card = find_card()
            try:
                if card:
                    _set_address(sock, card, network)
                    return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise
                if error.errno != 19:  # ENODEV: it was renamed since; look for it again
                    raise
            if time.monotonic() > deadline:
                raise TimeoutError("no virtio network card appeared")
            time.sleep(0.01)
    finally:
        sock.close()


def set_mac(mac: bytes) -> None:
    """Give the first virtio network card the address `mac`, if that is one; it may be up.  Raises `OSError`."""
    if not mac:
        return
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        fcntl.ioctl(sock, _SIOCSIFHWADDR, _ifreq(find_card(), pack("H", _ARPHRD_ETHER) + mac))
    finally:
        sock.close()


def find_card(net: str = _NET) -> str:
    """Return the name the first virtio network card has now; empty when there is none."""
    for name in sorted(os.listdir(net)):
        try:
            if os.readlink(f"{net}/{name}/device/driver").endswith("/virtio_net"):
                return name
        except OSError:
            continue
    return ""


def resolv_conf(network: Network) -> str:
    """Return the contents of resolv.conf."""
    return f"# Written by shed at every start.\nnameserver {network.dns}\n"


def write_resolv_conf(root: str, network: Network | None) -> None:
    """Write resolv.conf; a link to a resolver's file that is not there is replaced.  Raises `OSError`."""
    path = f"{root}/etc/resolv.conf"
    if network is not None and network.dns and steps.read_file(path) != resolv_conf(network):
        steps.make_folder(f"{root}/etc")
        steps.write_file(path, resolv_conf(network))


def _set_address(sock: _socket.socket, card: str, network: Network) -> None:
    mask = (0xFFFFFFFF << (32 - network.prefix) & 0xFFFFFFFF).to_bytes(4, "big")
    fcntl.ioctl(sock, _SIOCSIFADDR, _ifreq(card, _address(_socket.inet_aton(network.address))))
    fcntl.ioctl(sock, _SIOCSIFNETMASK, _ifreq(card, _address(mask)))
    _set_flags(sock, card)
    if network.gateway:
        # struct rtentry: padding, destination, gateway, mask, flags, …
        route = pack(
            "L16s16s16sH",
            0,
            _address(bytes(4)),
            _address(_socket.inet_aton(network.gateway)),
            _address(bytes(4)),
            _RTF_UP_GATEWAY,
        )
        fcntl.ioctl(sock, _SIOCADDRT, route.ljust(120, b"\0"))


def _set_flags(sock: _socket.socket, card: str) -> None:
    fcntl.ioctl(sock, _SIOCSIFFLAGS, _ifreq(card, pack("H", _UP_AND_RUNNING)))


def _ifreq(card: str, value: bytes) -> bytes:
    return pack("16s24s", card.encode(), value)


def _address(address: bytes) -> bytes:
    """Return a struct sockaddr_in."""
    return pack("HH4s8s", _socket.AF_INET, 0, address, b"")
