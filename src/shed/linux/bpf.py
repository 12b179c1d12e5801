"""An assembler for seccomp programs.  Pure: builds bytes.

Source: seccomp(2); include/uapi/linux/filter.h.
"""

from __future__ import annotations

import struct

ARCH_X86_64 = 0xC000003E
KILL, NOTIFY, ALLOW, ERRNO = 0x80000000, 0x7FC00000, 0x7FFF0000, 0x00050000
"""Decisions; `ERRNO` is or-ed with the number of an error."""
JEQ, JGT, JSET = 0x15, 0x25, 0x45
_LOAD, _AND, _RET = 0x20, 0x54, 0x06
_NUMBER, _ARCHITECTURE = 0, 4


def load_architecture() -> list[bytes]:
    """Return instructions that kill a process that makes a call of another architecture."""
    return [*_load(_ARCHITECTURE), *when(JEQ, ARCH_X86_64, otherwise=[ret(KILL)])]


def load_number() -> list[bytes]:
    """Return what loads the call's number."""
    return _load(_NUMBER)


def mask(value: int) -> bytes:
    """Return the instruction that leaves the bits of `value` of what is loaded."""
    return _word(_AND, value)


def _word(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", code, then, otherwise, value)


def _load(offset: int) -> list[bytes]:
    return [_word(_LOAD, offset)]


def argument(number: int) -> list[bytes]:
    """Load the low half of an argument: modes, flags and descriptors have 32 bits, and the kernel uses no more."""
    return _load(16 + 8 * number)


def ret(value: int) -> bytes:
    """Return the instruction that decides."""
    return _word(_RET, value)


def when(
    test: int, value: int, *, then: list[bytes] | None = None, otherwise: list[bytes] | None = None
) -> list[bytes]:
    """Return a test that goes through `then` when it holds, or through `otherwise` when it does not.

    Either may fall out at the end.
    """
    if then is not None:
        return [_word(test, value, 0, len(then)), *then]
    return [_word(test, value, len(otherwise or []), 0), *(otherwise or [])]
