"""What listens in a running shed, as its kernel says: TCP ports, and the addresses at which they are.

It is the guest's word, and whoever is root there may say anything: what is no address and no port is an error.
"""

from __future__ import annotations

import ipaddress
import re
import sys

from shed.api.ports import ListeningPort
from shed.errors import BackendError
from shed.sheds.commands import BUSYBOX, run
from shed.sheds.guests import Guests
from shed.untrusted import told

_WAIT = 5.0
"""Seconds for the guest to answer."""
MOST_PORTS = 1000
"""Of one shed; the lowest ones."""
_COMMAND = [BUSYBOX, "grep", "-h", " 0A ", "/proc/net/tcp", "/proc/net/tcp6"]
"""0A is the state of a socket that listens; proc_net_tcp(5)."""
_LINE = re.compile(r" *\d{1,9}: ([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4}) 0+:0000 0A .{0,200}")


async def listening(guests: Guests, name: str) -> list[ListeningPort]:
    """Return what listens in the running shed `name`, by port.

    Raises `BackendError`, and what `Guests.open_exec` raises for a shed that does not run.
    """
    done = await run(await guests.open_exec(name, autostart=False, looks=True), _COMMAND, wait=_WAIT)
    if done.error is not None:
        raise BackendError(f"shed {name!r} does not say what listens in it: {told(done.error)}", code="AGENT_PROTOCOL")
    return parse(done.stdout)


def parse(text: str) -> list[ListeningPort]:
    """Return what the lines of /proc/net/tcp and tcp6 in `text` say.  Raises `BackendError`."""
    found: dict[int, set[str]] = {}
    for line in text.splitlines():
        said = _LINE.fullmatch(line)
        if said is None:
            raise BackendError(f"what is said to listen makes no sense: {told(line, 80)!r}", code="AGENT_PROTOCOL")
        found.setdefault(int(said[2], 16), set()).add(_address(said[1]))
    return [ListeningPort(port=port, addresses=sorted(found[port])) for port in sorted(found)[:MOST_PORTS]]


def _address(digits: str) -> str:
    """Return an address of /proc/net/tcp: words of 32 bits in the byte order of the machine, which is the guest's."""
    words = (int(digits[start : start + 8], 16).to_bytes(4, sys.byteorder) for start in range(0, len(digits), 8))
    return str(ipaddress.ip_address(b"".join(words)))
