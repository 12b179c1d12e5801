"""A machine at rest: what the host saves when it has said hello, and restores later as the beginning of many machines.

All that every shed needs is loaded by then, because a restored machine has it for nothing.  The disks of a shed's own, which are
placeholders until then, are let go of: their driver learns sizes and contents only when it takes a disk, so it takes the real ones.
"""

from __future__ import annotations

import os

from shed.guest.configure import disks, overlay, steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.guest.configure.steps import Places

_DRIVER = "/sys/bus/virtio/drivers/virtio_blk"


def settle(places: Places) -> list[str]:
    """Get ready to be saved; return the virtio devices of the disks that were let go of, in order.  Raises `OSError`, `StepError`."""
    import gc

    from shed.guest import configure, environment, exec, poweroff, process, proxy, users  # noqa: A004, F401

    disks.await_modules(places.modules)
    overlay.free_initramfs(places)
    names = [os.path.basename(os.readlink(f"/sys/block/{os.path.basename(disk)}/device")) for disk in places.own_disks]
    for name in names:
        steps.write_value(f"{_DRIVER}/unbind", name)
    os.sync()
    gc.collect()
    gc.freeze()  # what is here now is not looked through, and so not copied, in each machine to come
    return names


def take_disks(names: list[str]) -> None:
    """Have the driver take the disks `names`, whatever is behind them now.  Raises `OSError`."""
    for name in names:
        steps.write_value(f"{_DRIVER}/bind", name)
