"""A guest whose root has taken the agent's place: what is written to the port is the attacker's."""

from __future__ import annotations

import socket

from shed.guest import protocol
from support.machine import Machine

_SERVICE = """\
import os, time

async def serve(loop, stream):
    os.write(1, b"the agent is taken over\\n")
    (port,) = [int(fd) for fd in os.listdir("/proc/self/fd") if "vport" in os.readlink(f"/proc/self/fd/{fd}") ]
    os.set_blocking(port, True)
    with open("/tmp/flood", "rb") as file:
        flood = file.read()
    while True:
        try:
            os.write(port, flood)
        except OSError:
            time.sleep(0.01)
"""
_TAKE_OVER = """\
set -e
cd /tmp && mkdir evil && cp -a /run/shed-runtime/agent/shed/guest/. evil
rm -f evil/__pycache__/proxy.*
cat > evil/proxy.py
mount -o bind evil /run/shed-runtime/agent/shed/guest
"""
JUNK = (protocol.MAGIC + b"\xff" * protocol.MUX_HEADER) * 2000
"""Sessions that begin, and break."""
EMPTY = protocol.mux_frame(protocol.DATA, 1) * 7000
"""Frames that carry nothing."""


def take_over(machine: Machine, name: str, flood: bytes) -> socket.socket:
    """Have the agent of the shed `name` replaced by what writes `flood` to its port, again and again; return who woke it."""
    machine.shed("exec", "--user", "root", name, "--", "sh", "-c", "cat > /tmp/flood", stdin=flood)
    machine.shed("exec", "--user", "root", name, "--", "sh", "-c", _TAKE_OVER, stdin=_SERVICE.encode())
    client = socket.socket(socket.AF_UNIX)
    client.connect(machine.environment["SHED_RUNTIME_DIR"] + "/shed.sock")
    client.sendall(f"GET /api/sheds/{name}/connect/80 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: shed-tcp\r\n\r\n".encode())
    return client
