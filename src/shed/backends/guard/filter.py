"""The seccomp program of a QEMU that serves folders.  Pure: builds bytes.

It holds whoever has taken over QEMU, too, in this: **no set-id bits, no devices**.  A mode is an argument, so the
kernel's BPF sees it.

It can also hand to the supervisor all calls by which the 9P server makes, changes, moves or removes a name: those with
the descriptor of a folder.  QEMU's own (``AT_FDCWD``: disks, sockets, logs) go their way.  Calls that take arguments
from memory or a ring (`openat2`, `io_uring_setup`), and ones newer than this list, do not exist for it: QEMU does
without them.

Source: seccomp(2); include/uapi/linux/filter.h; arch/x86/entry/syscalls/syscall_64.tbl.
"""

from __future__ import annotations

import errno
import struct

ARCH_X86_64 = 0xC000003E
KILL, NOTIFY, ALLOW, ERRNO = 0x80000000, 0x7FC00000, 0x7FFF0000, 0x00050000
SYSCALLS = {
    "open": 2, "mknod": 133, "creat": 85, "chmod": 90, "fchmod": 91, "openat": 257, "mkdirat": 258, "mknodat": 259,
    "unlinkat": 263, "renameat": 264, "linkat": 265, "symlinkat": 266, "fchmodat": 268, "renameat2": 316,
    "io_uring_setup": 425, "openat2": 437, "fchmodat2": 452,
}  # fmt: skip
_NEWEST = 451
"""Calls after this one (`cachestat`) have not been looked at."""
SET_ID, SETGID = 0o6000, 0o2000
_FORMAT, _CHARACTER, _BLOCK = 0o170000, 0o020000, 0o060000
_O_CREAT, _O_TMPFILE, _O_TRUNC, _O_ACCMODE = 0o100, 0o20000000, 0o1000, 0o3
WRITES = _O_CREAT | _O_TRUNC | _O_ACCMODE
CREATES = _O_CREAT | _O_TMPFILE
_AT_FDCWD = 0xFFFFFF9C
_LOAD, _JEQ, _JGT, _JSET, _AND, _RET = 0x20, 0x15, 0x25, 0x45, 0x54, 0x06
_NUMBER, _ARCHITECTURE = 0, 4
_REFUSED, _MISSING = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS

_MODES = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "fchmodat2": 2, "creat": 1, "mknod": 1, "mknodat": 2}
"""Which argument is the mode."""
_OPENS = {"open": (1, 2), "openat": (2, 3)}
"""Which are flags and mode."""
_MAKES = ("openat", "mkdirat", "mknodat", "unlinkat", "renameat", "renameat2", "linkat", "symlinkat")
_FOLDER = {"symlinkat": 1}
"""Which argument is the folder's descriptor, where it is not the first."""


def program(*, supervised: bool, names: bool) -> bytes:
    """Return the instructions (struct sock_filter each).

    `supervised` when there is a supervisor to ask, `names` when it is asked about names, too.
    """
    code = [
        *_load(_ARCHITECTURE),
        *_when(_JEQ, ARCH_X86_64, otherwise=[_ret(KILL)]),
        *_load(_NUMBER),
        *_when(_JGT, _NEWEST, then=[_ret(_MISSING)]),  # those of the x32 ABI, too
    ]
    for name in ("openat2", "io_uring_setup"):
        code += _when(_JEQ, SYSCALLS[name], then=[_ret(_MISSING)])
    for name in dict.fromkeys((*_MODES, *_OPENS, *(_MAKES if names else ()))):
        if (number := SYSCALLS[name]) <= _NEWEST:
            code += _when(_JEQ, number, then=[*_modes(name, supervised), *(_asks(name) if names else []), _ret(ALLOW)])
    return b"".join([*code, _ret(ALLOW)])


def _modes(name: str, supervised: bool) -> list[bytes]:
    """Refuse set-id bits and devices; a folder that inherited its setgid may keep it, which the supervisor can tell."""
    if name in _OPENS:
        flags, mode = _OPENS[name]
        return [
            *_argument(flags),
            *_when(_JSET, CREATES, then=[*_argument(mode), *_when(_JSET, SET_ID, then=[_ret(_REFUSED)])]),
        ]
    if name not in _MODES:
        return []
    code = _argument(_MODES[name])
    if name == "chmod" and supervised:
        return [
            *code,
            *_when(_JSET, SET_ID & ~SETGID, then=[_ret(_REFUSED)]),
            *_when(_JSET, SETGID, then=[_ret(NOTIFY)]),
        ]
    code += _when(_JSET, SET_ID, then=[_ret(_REFUSED)])
    if name in {"mknod", "mknodat"}:
        code += [_word(_AND, _FORMAT)]
        for kind in (_CHARACTER, _BLOCK):
            code += _when(_JEQ, kind, then=[_ret(_REFUSED)])
    return code


def _asks(name: str) -> list[bytes]:
    if name not in _MAKES:
        return []
    ask = [_ret(NOTIFY)]
    if name == "openat":
        ask = [*_argument(_OPENS[name][0]), *_when(_JSET, WRITES, then=ask)]
    return [*_argument(_FOLDER.get(name, 0)), *_when(_JEQ, _AT_FDCWD, otherwise=ask)]


def _word(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", code, then, otherwise, value)


def _load(offset: int) -> list[bytes]:
    return [_word(_LOAD, offset)]


def _argument(number: int) -> list[bytes]:
    """Load the low half of an argument: modes, flags and descriptors have 32 bits, and the kernel uses no more."""
    return _load(16 + 8 * number)


def _ret(value: int) -> bytes:
    return _word(_RET, value)


def _when(
    test: int, value: int, *, then: list[bytes] | None = None, otherwise: list[bytes] | None = None
) -> list[bytes]:
    """Return a test that goes through `then` when it holds, or through `otherwise` when it does not.

    Either may fall out at the end.
    """
    if then is not None:
        return [_word(test, value, 0, len(then)), *then]
    return [_word(test, value, len(otherwise or []), 0), *(otherwise or [])]
