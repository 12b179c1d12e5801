"""Which addresses no shed reaches, or only by a rule that names them.

Sources: RFC 6890 (special-purpose registries of IANA, as of 2025), RFC 6598 (CGNAT), RFC 4193 (ULA), RFC 6052 and
RFC 8215 (NAT64), RFC 3056 (6to4), RFC 4380 (Teredo).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MADE_UP = ipaddress.IPv4Network("198.18.0.0/15")
"""What names are answered with inside sheds: RFC 2544's range for benchmarks, which no network routes."""

PRIVATE: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "fc00::/7",
        "192.0.2.0/24",  # this and the next four are for documentation, and labs use them
        "198.51.100.0/24",
        "203.0.113.0/24",
        "2001:db8::/32",
        "3fff::/20",
    )
)
"""Networks behind the host.  A rule may open a part of one by naming it."""

NEVER: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local; the metadata services of clouds are here
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/96",  # unspecified, loopback, and the old v4-compatible spelling
        "100::/64",
        "5f00::/16",
        "fd00:ec2::254/128",  # a metadata service
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)
"""Networks that no rule opens."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
_TEREDO = ipaddress.IPv6Network("2001::/32")
_KEPT = 1024
"""Addresses of which is kept what they are: each connection asks twice."""
_ISATAP = (0x00005EFE, 0x02005EFE)
"""The third 32 bits of an ISATAP address, RFC 5214."""


def embedded(address: Address) -> tuple[Address, ...]:
    """Return `address` and every IPv4 address that a router or a kernel may read out of it."""
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    found: list[Address] = [address]
    number = int(address)
    low = ipaddress.IPv4Address(number & 0xFFFFFFFF)
    if address.ipv4_mapped is not None:
        found.append(address.ipv4_mapped)
    if address in _NAT64 or address in _NAT64_LOCAL or (number >> 32) & 0xFFFFFFFF in _ISATAP:
        found.append(low)
    if address in _SIX_TO_FOUR:
        found.append(ipaddress.IPv4Address((number >> 80) & 0xFFFFFFFF))
    if address in _TEREDO:
        found += [ipaddress.IPv4Address((number >> 64) & 0xFFFFFFFF), ipaddress.IPv4Address(int(low) ^ 0xFFFFFFFF)]
    return tuple(found)


@lru_cache(maxsize=_KEPT)
def forbidden(address: Address) -> bool:
    """Say whether no rule can open `address`, whatever host this is."""
    return any(_within(one, NEVER) for one in embedded(address))


@lru_cache(maxsize=_KEPT)
def private(address: Address) -> bool:
    """Say whether `address` is behind the host, so that only a rule that names a part of such a network opens it."""
    return any(_within(one, PRIVATE) for one in embedded(address)) or address in _NAT64_LOCAL


def is_private_network(network: Network) -> bool:
    """Say whether all of `network` lies within one of `PRIVATE`: then a rule for it opens what is in it."""
    return any(network.version == one.version and network.subnet_of(one) for one in PRIVATE)  # type: ignore[arg-type]


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)
