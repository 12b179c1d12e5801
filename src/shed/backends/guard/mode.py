"""What a QEMU is held to, for the folders that it serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shed.backends.base import Share
from shed.backends.guard.filter import program


@dataclass(frozen=True, slots=True)
class Guard:
    """For the launcher: a seccomp program, empty when there is none, and whether it has a supervisor."""

    program: bytes
    supervised: bool


OPEN = Guard(b"", supervised=False)
"""Nothing is shared."""


def plan(shares: Sequence[Share], *, more: bool = False) -> Guard:
    """Return what QEMU is held to while it serves `shares`, and may get `more`.

    Who only reads needs no supervisor.  It is also by this that folders are taken away again.
    """
    if more:
        return Guard(program(supervised=True, names=True), supervised=True)
    if not shares:
        return OPEN
    modes = {share.mode for share in shares}
    supervised = modes != {"ro"}
    return Guard(program(supervised=supervised, names="rw" in modes), supervised)
