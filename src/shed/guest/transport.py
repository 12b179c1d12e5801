"""The agent's byte channel to the host: a virtio-serial port.

Backends with vsock will listen here instead and hand each connection to the services as a stream of its own, without
the multiplexer.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.guest.loop import Loop

PORT_NAME = "shed.agent"
_SYSFS_PORTS = "/sys/class/virtio-ports"


class PortMissingError(Exception):
    """The machine has no such virtio-serial port."""


def find_port(name: str = PORT_NAME, *, sysfs: str = _SYSFS_PORTS, timeout: float = 5.0) -> str:
    """Return the device file of the virtio-serial port `name`; there is no udev to make links by name.

    Waits `timeout` seconds for the driver to find it.  Raises `PortMissingError`.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            for entry in os.listdir(sysfs):
                with open(f"{sysfs}/{entry}/name", "rb", buffering=0) as file:
                    if file.read().strip() == name.encode():
                        return f"/dev/{entry}"
        except FileNotFoundError:
            pass  # the driver is not there yet, or the port is being set up
        if time.monotonic() > deadline:
            raise PortMissingError(f"no virtio-serial port named {name}")
        time.sleep(0.005)


class Port:
    """The channel.  Empty reads mean that the host has hung up; writing then waits until another host is there."""

    def __init__(self, loop: Loop, fd: int) -> None:
        self._watch = loop.watch(fd)
        self.read = self._watch.read
        self.write = self._watch.write
        self.close = self._watch.close
