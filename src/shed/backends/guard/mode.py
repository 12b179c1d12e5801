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
    free: tuple[str, ...] = ()
    """Folders of which the supervisor says nothing, while it rules others."""


OPEN = Guard(b"", supervised=False)
"""Nothing is shared."""


def plan(shares: Sequence[Share]) -> Guard:
    """Return what QEMU is held to while it serves `shares`; who only reads needs no supervisor."""
    if not shares:
        return OPEN
    modes = {share.mode for share in shares}
    supervised = modes != {"ro"}
    free = tuple(str(share.path) for share in shares if share.mode == "git-rw") if "rw" in modes else ()
    return Guard(program(supervised=supervised, names="rw" in modes), supervised, free)
