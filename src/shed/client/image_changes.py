"""What a shed has changed of its image, as the shed tells it."""

from __future__ import annotations

import os
from collections.abc import Callable

from shed.client.address import Address
from shed.client.asking import ask
from shed.client.copying import CopyError, said_by_helper
from shed.execstream import helper
from shed.untrusted import told

KINDS = {"A": "added", "M": "changed", "D": "deleted"}
_LONGEST = 4096
"""Bytes of one path."""
_MOST_BYTES, _MOST = 64 << 20, 500_000
"""Of all paths, and paths."""


def changes(address: Address, name: str, tell: Callable[[str, str], object], *, on_start: Callable[[], None]) -> int:
    """Tell all that is other in the shed `name` than in its image: one of `KINDS`, and a path; return how many.

    A folder that was added or deleted stands for what is in it.  Folders of this machine in the shed are not looked at.
    Raises `CopyError` (COPY_FAILED), and what an exec does; a stopped shed is started, and `on_start` called before.
    """
    rest, count, size = b"", 0, 0

    def hear(data: bytes) -> None:
        nonlocal rest, count, size
        size += len(data)
        *lines, rest = (rest + data).split(b"\0")
        count += len(lines)
        if size > _MOST_BYTES or count > _MOST:
            raise CopyError(f"more has changed in shed {name!r} than can be told", hint="look there: shed console NAME")
        if any(len(line) > _LONGEST or line[:1].decode("latin-1") not in KINDS for line in [*lines, rest or b"A"]):
            raise CopyError(f"shed {name!r} does not say what has changed in it")
        for line in lines:
            tell(line[:1].decode(), os.fsdecode(line[1:]))

    ended, said = ask(address, name, helper("changes"), hear=hear, user="root", on_start=on_start)
    if ended.code or ended.error:
        _, problem, words = said_by_helper(said)
        why = problem or ended.error or words or f"exit code {ended.code}"
        raise CopyError(f"shed {name!r} cannot tell what has changed in it: {told(why)}")
    return count
