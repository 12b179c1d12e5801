"""A machine at rest: what the host saves when it has said hello, and restores later as the beginning of many machines.

What is the same for every shed is done by then, and what every shed needs is loaded: a restored machine has it for nothing.  The two disks
that will be others are let go of.  Their driver learns a disk's size and contents when it takes the disk, so it takes the real ones.
"""

from __future__ import annotations

import os

from shed.guest.configure import prepare, set_up_network, steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.guest.configure.request import Network
    from shed.guest.configure.steps import Places
    from shed.guest.loop import Loop

_DRIVER = "/sys/bus/virtio/drivers/virtio_blk"


class Rest:
    """What a machine at rest has done already."""

    def __init__(self, disks: list[str], network: Network | None) -> None:
        self._disks = disks
        """Virtio devices that were let go of, in the order of their names."""
        self._network = network

    def has_network(self, wanted: Network | None) -> bool:
        """Tell whether the card is as `wanted`, but for its MAC."""
        mine = self._network
        return (
            mine is not None
            and wanted is not None
            and (mine.address, mine.prefix, mine.gateway) == (wanted.address, wanted.prefix, wanted.gateway)
        )

    def take_disks(self) -> None:
        """Have the driver take the disks, whatever is behind them now.  Raises `OSError`."""
        for name in self._disks:
            steps.write_value(f"{_DRIVER}/bind", name)


def settle(loop: Loop, places: Places, network: Network | None) -> Rest:
    """Get ready to be saved.  Raises `OSError`, `StepError`."""
    import gc

    from shed.guest import environment, exec, poweroff, process, proxy  # noqa: A004, F401

    prepare(loop, places)
    has_network = network is not None and set_up_network(loop, network)
    disks = [os.path.basename(os.readlink(f"/sys/block/{os.path.basename(disk)}/device")) for disk in places.own_disks]
    for name in disks:
        steps.write_value(f"{_DRIVER}/unbind", name)
    gc.collect()
    gc.freeze()  # nobody looks through, and so copies, what is here in each of the machines to come
    return Rest(disks, network if has_network else None)
