"""What a QEMU is held to, for the folders that it serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shed.backends.base import Share
from shed.backends.qemu.guard.filter import program


@dataclass(frozen=True, slots=True)
class Guard:
    """For the launcher: a seccomp program, and the mode of the supervisor; empty when there is none."""

    program: bytes
    supervisor: str


OPEN = Guard(b"", "")
"""Nothing is shared."""


def plan(shares: Sequence[Share]) -> Guard:
    """Return what QEMU is held to while it serves `shares`; who only reads needs no supervisor."""
    if not shares:
        return OPEN
    modes = {share.mode for share in shares}
    supervisor = "rw" if "rw" in modes else "git-rw" if "git-rw" in modes else ""
    return Guard(program(guarded=bool(supervisor)), supervisor)
