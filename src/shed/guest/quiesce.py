"""Getting a machine ready to be saved: the host does that at hello, and restores many machines from it later.

What is the same for every shed is done by then, and what every shed needs is loaded: a restored machine has it for
nothing.  Its own two disks stay unused, because others take their place.  The host saves the machine with the driver's
notice that they have changed still pending, so a restored kernel first looks how large they are.
"""

from __future__ import annotations

import os

from shed.guest import syscalls
from shed.guest.configure import prepare, set_up_network

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.guest.configure.request import Network
    from shed.guest.configure.steps import Places
    from shed.guest.loop import Loop


def quiesce(loop: Loop, places: Places, network: Network | None) -> Network | None:
    """Get ready to be saved; return `network` if the card is set up for it now.  Raises `OSError`, `StepError`."""
    import gc

    from shed.guest import exec, listen, poweroff, process, proxy, terminal  # noqa: A004, F401
    from shed.guest.configure import keystores  # noqa: F401

    prepare(loop, places)
    has_network = network is not None and set_up_network(loop, network)
    root = os.open(places.root_device, os.O_RDONLY | os.O_CLOEXEC)
    syscalls.set_read_only(root)  # as the one that comes: a placeholder is none
    os.close(root)
    gc.collect()
    gc.freeze()  # nobody looks through, and so copies, what is here in each of the machines to come
    return network if has_network else None
