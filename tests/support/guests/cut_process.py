"""Connections in a network of this process's own (`unshare -n`), and what becomes of them when all are cut.

Argument: the source folder.  Prints a JSON object: address, and ``cut`` or ``goes on``.
"""

import json
import socket
import subprocess
import sys

sys.path.insert(0, sys.argv[1])

from shed.guest.connections import cut_all
from shed.guest.loop import Loop

SETUP = "ip link set lo up; ip address add 10.9.9.1/24 dev lo; ip -6 address add fd00::9/64 dev lo nodad"
ADDRESSES = {
    "10.9.9.1": socket.AF_INET,
    "127.0.0.1": socket.AF_INET,
    "fd00::9": socket.AF_INET6,
    "::1": socket.AF_INET6,
}


def main() -> None:
    """Connect, cut, and look."""
    subprocess.run(["sh", "-ec", SETUP], check=True)
    ends = {}
    for address, family in ADDRESSES.items():
        listener = socket.create_server((address, 0), family=family)
        ends[address] = (socket.create_connection(listener.getsockname()[:2]), listener.accept()[0], listener)
    cut_all(Loop())
    found = {}
    for address, (ours, theirs, listener) in ends.items():
        try:
            theirs.sendall(b"x")
            found[address] = "goes on" if ours.recv(1) else "cut"
        except ConnectionError:
            found[address] = "cut"
        socket.create_connection(listener.getsockname()[:2]).close()  # who listens goes on listening
    sys.stdout.write(json.dumps(found))


main()
