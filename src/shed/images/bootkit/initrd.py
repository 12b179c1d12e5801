"""Makes the initrd: a static busybox, the guest's init script, and the kernel modules in load order.

::

    init             the script src/shed/guest/init
    bin/busybox      static
    modules/*.ko     decompressed, without signatures
    modules/early    file names, in load order: what is needed before the agent can start
    modules/late     the same for all else; the agent loads these

It is not compressed: under emulation unpacking costs more than reading.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Sequence

from shed.images.bootkit.cpio import write_cpio
from shed.images.bootkit.modules import Module
from shed.images.bootkit.tree import Tree


def build_initrd(*, busybox: bytes, init: bytes, early: Sequence[Module], late: Sequence[Module]) -> bytes:
    """Return the initrd."""
    tree = Tree()
    tree.file("init", init, 0o755)
    tree.file("bin/busybox", busybox, 0o755)
    tree.device("dev/console", stat.S_IFCHR | 0o600, os.makedev(5, 1))
    for name, modules in (("early", early), ("late", late)):
        for module in modules:
            tree.file(f"modules/{module.file_name}", module.data)
        tree.file(f"modules/{name}", "".join(f"{module.file_name}\n" for module in modules))
    out = io.BytesIO()
    write_cpio(tree.entries(), out)
    return out.getvalue()
