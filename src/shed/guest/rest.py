"""A machine at rest: what the host saves when it has said hello, and restores later as the beginning of many machines.

What is the same for every shed is done by then, and what every shed needs is loaded: a restored machine has it for
nothing.  The two disks that will be others stay as they are, unused.  The host saves the machine with word that they
have changed on its way to the driver: so the first thing that a restored kernel does is to look how large they are.
"""

from __future__ import annotations

import os
import time

from shed.guest import syscalls
from shed.guest.configure import prepare, set_up_network, steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.guest.configure.request import Network
    from shed.guest.configure.steps import Places
    from shed.guest.loop import Loop

_DISK_SECONDS = 5.0
_SECTOR = 512


class Rest:
    """What a machine at rest has done already: its `network` is there, if that is not None."""

    def __init__(self, network: Network | None) -> None:
        self._network = network

    def has_network(self, wanted: Network | None) -> bool:
        """Tell whether the card is as `wanted`, but for its MAC."""
        mine = self._network
        if mine is None or wanted is None:
            return False
        return (mine.address, mine.prefix, mine.gateway) == (wanted.address, wanted.prefix, wanted.gateway)


def settle(loop: Loop, places: Places, network: Network | None) -> Rest:
    """Get ready to be saved.  Raises `OSError`, `StepError`."""
    import gc

    from shed.guest import environment, exec, listen, poweroff, process, proxy, terminal  # noqa: A004, F401

    prepare(loop, places)
    has_network = network is not None and set_up_network(loop, network)
    root = os.open(places.root_device, os.O_RDONLY | os.O_CLOEXEC)
    syscalls.set_read_only(root)  # as the one that comes: a placeholder is none
    os.close(root)
    gc.collect()
    gc.freeze()  # nobody looks through, and so copies, what is here in each of the machines to come
    return Rest(network if has_network else None)


def await_disks(places: Places, sizes: list[int]) -> None:
    """Wait until the kernel knows that the disks have `sizes`, in bytes.  Raises `StepError`."""
    deadline = time.monotonic() + _DISK_SECONDS
    for device, size in zip(places.own_disks, sizes, strict=False):
        name = os.path.basename(device)
        while int(steps.read_file(f"/sys/block/{name}/size") or 0) * _SECTOR != size:
            if time.monotonic() > deadline:
                raise steps.StepError(
                    steps.UPPER_MISSING, f"the kernel does not see that {device} has {size} bytes now"
                )
            time.sleep(0.002)
