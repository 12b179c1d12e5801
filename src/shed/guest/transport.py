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
_PAGE = 4096
_READ_SIZE = 64 * _PAGE
_GATHERING = 0.002
"""Seconds: what comes in them at 60 MB/s is half of what is read at once."""
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
    """The channel.  Empty reads mean that the host has hung up; writing then waits until another host is there.

    The driver gives a page at most in one read, and the VMM brings them one by one.  So when much comes, many pages are
    asked for at once, and they get a moment to gather: each turn of the loop costs more than many pages.
    """

    def __init__(self, loop: Loop, fd: int) -> None:
        self._loop = loop
        self._watch = loop.watch(fd)
        self._buffer = memoryview(bytearray(_READ_SIZE))
        self._pages = [self._buffer[at : at + _PAGE] for at in range(0, _READ_SIZE, _PAGE)]
        self._much = False
        self.write = self._watch.write
        self.write_now = self._watch.write_now
        self.close = self._watch.close

    async def read(self) -> memoryview:
        """Return what has come, which is good until the next read; empty when the host has hung up."""
        if not self._much:
            size = await self._watch.read_into(self._buffer[:_PAGE])
        elif (size := self._watch.read_now(*self._pages)) < 0:
            await self._loop.sleep(_GATHERING)
            size = await self._watch.read_into(*self._pages)
        self._much = size >= _PAGE
        return self._buffer[:size]
