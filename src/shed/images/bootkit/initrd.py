"""Makes the initrd: a static busybox, the guest's init script, and the kernel modules in load order.

::

    init             the script src/shed/guest/init
    bin/busybox      static
    modules/*.ko     decompressed, without signatures
    modules/early    file names, in load order: what is needed before the agent can start
    modules/late     the same for all else; the agent loads these

It is not compressed: under emulation unpacking costs more than reading.

It is a newc cpio archive: Documentation/driver-api/early-userspace/buffer-format.rst of the Linux kernel.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterable, Sequence
from typing import BinaryIO

from shed.entries import Entry
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


_TRAILER = b"TRAILER!!!"
_BLOCK = 512


def write_cpio(entries: Iterable[Entry], out: BinaryIO) -> None:
    """Write `entries` to `out` as one archive, padded to 512 bytes.

    Hardlinks and xattrs do not exist in it and are refused.

    The same entries give the same bytes: inode numbers are counted, owners and times are those of the entries.
    """
    written = 0
    for number, entry in enumerate(entries, 1):
        if entry.link is not None or entry.xattrs:
            raise ValueError(f"{entry.path!r}: no hardlinks or xattrs in an initrd")
        written += _member(out, number, entry, entry.path or b".")
    written += _member(out, 0, Entry(_TRAILER, 0), _TRAILER)
    out.write(bytes(-written % _BLOCK))


def _member(out: BinaryIO, number: int, entry: Entry, name: bytes) -> int:
    data = entry.content.pread(entry.size, 0) if entry.content else entry.target
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        number, entry.mode, entry.uid, entry.gid, links, entry.mtime, len(data),
        0, 0, os.major(entry.rdev), os.minor(entry.rdev), len(name) + 1, 0,
    )  # fmt: skip
    header = b"070701" + b"".join(b"%08X" % value for value in fields) + name + b"\0"
    header += bytes(-len(header) % 4)
    return out.write(header) + out.write(data) + out.write(bytes(-len(data) % 4))
