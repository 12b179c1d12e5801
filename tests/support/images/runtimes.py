"""Runtimes that boot nothing, but have an empty writable layer that can be taken out."""

from __future__ import annotations

import tempfile
from functools import cache

from shed.erofs.writer import write_image
from support.erofs.trees import file, folder


@cache
def small_runtime(kit: str) -> bytes:
    """Return the runtime blob of a boot kit that is called `kit`; another kit has another."""
    upper = bytearray(1 << 16)
    upper[1080:1082] = b"\x53\xef"  # what passes for an empty ext4
    with tempfile.TemporaryFile() as out:
        write_image(
            [folder(""), file("kit", kit.encode()), folder("share"), file("share/upper.ext4", bytes(upper))], out
        )
        out.seek(0)
        return out.read()
