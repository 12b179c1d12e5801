"""Addresses made up for names, for one shed.

Its name service answers with them, and its connections lead back from them to the names.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections import OrderedDict
from collections.abc import Mapping

from shed.egress.rules.addresses import MADE_UP
from shed.egress.rules.policy import normal_name

MOST_NAMES = 8192
"""That a shed can have in use, which is 5 MB at most; the one that was used longest ago makes room."""
_FIRST = int(MADE_UP.network_address) + 256
_COUNT = MADE_UP.num_addresses - 512


class Names:
    """The names that a shed asked for, each with an address of its own.

    Addresses are taken in turn from a random start, so that one is used again only after all others: whoever kept an
    old address then finds nothing there for a long time, and never a name that its rules do not allow.
    """

    def __init__(self, known: Mapping[str, str] | None = None) -> None:
        """`known` is the `to_json` of another one, whose addresses go on to stand for their names."""
        self._by_name: OrderedDict[str, ipaddress.IPv4Address] = OrderedDict()
        self._by_address: dict[ipaddress.IPv4Address, str] = {}
        for name, text in (known or {}).items():
            address = ipaddress.IPv4Address(text)
            if address in MADE_UP and len(self._by_name) < MOST_NAMES:
                self._by_name[normal_name(name)] = address
                self._by_address[address] = name
        self._next = secrets.randbelow(_COUNT)

    def address_of(self, name: str) -> ipaddress.IPv4Address:
        """Return the address that stands for `name` from now on."""
        address = self._by_name.get(name)
        if address is None:
            if len(self._by_name) >= MOST_NAMES:
                _, oldest = self._by_name.popitem(last=False)
                del self._by_address[oldest]
            address = self._free()
            self._by_name[name] = address
            self._by_address[address] = name
        self._by_name.move_to_end(name)
        return address

    def name_of(self, address: ipaddress.IPv4Address) -> str | None:
        """Return the name that `address` stands for, None when it stands for none.  It counts as used."""
        name = self._by_address.get(address)
        if name is not None:
            self._by_name.move_to_end(name)
        return name

    def to_json(self) -> dict[str, str]:
        """Return the names with their addresses, in the order of their last use."""
        return {name: str(address) for name, address in self._by_name.items()}

    def _free(self) -> ipaddress.IPv4Address:
        while True:
            address = ipaddress.IPv4Address(_FIRST + self._next)
            self._next = (self._next + 1) % _COUNT
            if address not in self._by_address:
                return address
