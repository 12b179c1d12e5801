"""The seccomp program of a QEMU that serves folders.  Pure: builds bytes.

It holds whoever has taken over QEMU, too, in this: **no set-id bits, no devices**.  A mode is an argument, so the
kernel's BPF sees it.

It can also hand to the supervisor all calls by which the 9P server makes, changes, moves or removes a name: those with
the descriptor of a folder.  QEMU's own (``AT_FDCWD``: disks, sockets, logs) go their way, unless they make a file: by
that QEMU asks for its descriptors to be looked through (`shed.backends.guard.revoking`).  Calls that take arguments
from memory or a ring (`openat2`, `io_uring_setup`), and ones newer than this list, do not exist for it: QEMU does
without them.

Source: seccomp(2); include/uapi/linux/filter.h; arch/x86/entry/syscalls/syscall_64.tbl.
"""

from __future__ import annotations

import errno

from shed.linux.bpf import (
    ALLOW,
    ERRNO,
    JEQ,
    JGT,
    JSET,
    NOTIFY,
    argument,
    load_architecture,
    load_number,
    mask,
    ret,
    when,
)

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
AT_FDCWD = 0xFFFFFF9C
ALL_SHARES = b"/shares"
SHARES, FREE = ALL_SHARES + b"/held", ALL_SHARES + b"/free"
"""Where in QEMU's jail the folders that it serves are, with their whole paths on the host; below the second one, git's
settings and hooks are not looked at.
"""
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
        *load_architecture(),
        *load_number(),
        *when(JGT, _NEWEST, then=[ret(_MISSING)]),  # those of the x32 ABI, too
    ]
    for name in ("openat2", "io_uring_setup"):
        code += when(JEQ, SYSCALLS[name], then=[ret(_MISSING)])
    for name in dict.fromkeys((*_MODES, *_OPENS, *(_MAKES if names else ()))):
        if (number := SYSCALLS[name]) <= _NEWEST:
            code += when(JEQ, number, then=[*_modes(name, supervised), *(_asks(name) if names else []), ret(ALLOW)])
    return b"".join([*code, ret(ALLOW)])


def _modes(name: str, supervised: bool) -> list[bytes]:
    """Refuse set-id bits and devices; a folder that inherited its setgid may keep it, which the supervisor can tell."""
    if name in _OPENS:
        flags, mode = _OPENS[name]
        return [
            *argument(flags),
            *when(JSET, CREATES, then=[*argument(mode), *when(JSET, SET_ID, then=[ret(_REFUSED)])]),
        ]
    if name not in _MODES:
        return []
    code = argument(_MODES[name])
    if name == "chmod" and supervised:
        return [
            *code,
            *when(JSET, SET_ID & ~SETGID, then=[ret(_REFUSED)]),
            *when(JSET, SETGID, then=[ret(NOTIFY)]),
        ]
    code += when(JSET, SET_ID, then=[ret(_REFUSED)])
    if name in {"mknod", "mknodat"}:
        code += [mask(_FORMAT)]
        for kind in (_CHARACTER, _BLOCK):
            code += when(JEQ, kind, then=[ret(_REFUSED)])
    return code


def _asks(name: str) -> list[bytes]:
    if name not in _MAKES:
        return []
    ask = [*argument(_FOLDER.get(name, 0)), *when(JEQ, AT_FDCWD, otherwise=[ret(NOTIFY)])]
    if name != "openat":
        return ask
    flags = argument(_OPENS[name][0])
    makes = [*flags, *when(JSET, CREATES, then=[ret(NOTIFY)])]
    return [*flags, *when(JSET, WRITES, then=[*ask, *makes])]
