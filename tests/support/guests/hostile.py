"""A guest whose root has taken hold of the agent's port, and writes to it what it likes."""

from __future__ import annotations

from shed.guest import protocol
from support.vms.machine import Machine

_PROGRAM = """\
import ctypes, os, time
(port,) = [int(fd) for fd in os.listdir("/proc/1/fd") if "vport" in os.readlink(f"/proc/1/fd/{fd}")]
libc = ctypes.CDLL(None, use_errno=True)
port = libc.syscall(438, os.pidfd_open(1), port, 0)
assert port >= 0, os.strerror(ctypes.get_errno())
with open("/tmp/flood", "rb") as file:
    flood = file.read()
os.write(1, b"the port is taken\\n")
while True:
    try:
        os.write(port, flood)
    except OSError:
        time.sleep(0.001)
"""
"""438 is pidfd_getfd: the port itself can be opened once only, and the agent has it open."""
_START = """\
runtime=/run/shed-runtime
cat > /tmp/attack.py
exec $runtime/bin/busybox setsid \\
    $runtime/lib/ld-linux-* --library-path $runtime/lib $runtime/bin/python3 -I -S /tmp/attack.py \\
    > /tmp/attack.log 2>&1 < /dev/null &
until $runtime/bin/busybox grep taken /tmp/attack.log; do $runtime/bin/busybox sleep 0.1; done
"""
JUNK = (protocol.MAGIC + b"\xff" * protocol.MUX_HEADER) * 1300
"""Sessions that begin, and break."""
EMPTY = protocol.mux_frame(protocol.DATA, 1) * 3600
"""Frames that carry nothing."""


def take_port(machine: Machine, name: str, flood: bytes) -> None:
    """Have root in the shed `name` write `flood` to the agent's port, again and again, from a moment on."""
    machine.shed("exec", "--user", "root", name, "--", "sh", "-c", "cat > /tmp/flood", stdin=flood)
    machine.try_shed(
        "exec", "--user", "root", name, "--", "sh", "-c", _START, stdin=_PROGRAM.encode()
    )  # it may lose its link
